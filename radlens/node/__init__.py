"""A DICOM node: images from modalities and a PACS to a radlens server, and its results back."""

from radlens.node.files import Folder
from radlens.node.queue import Queue
from radlens.node.reading import read_settings
from radlens.node.service import Node, is_running
from radlens.node.settings import Settings

__all__ = ["Folder", "Node", "Queue", "Settings", "is_running", "read_settings"]
