"""How pytest-xdist gives tests to processes: a file stays in one process, and so do all that share a TorchServe."""

from shared_server import HOST, needs_shared_server
from xdist.scheduler import LoadScopeScheduling
from xdist.workermanage import WorkerController

SHARED = "tests that share a TorchServe"


class ByFile(LoadScopeScheduling):
    """Tests of a file stay in one process; those of ``tests/serving`` run in `HOST`, after its first file.

    Marks for groups of xdist 3.8 have no effect in pytest 9.2, and no message says so.
    """

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.split("::")[0]
        return SHARED if needs_shared_server(file) else file

    def _assign_work_unit(self, node: WorkerController) -> None:
        # While the first file is tested, TorchServe starts.
        if SHARED in self.workqueue:
            is_next = node.gateway.id == HOST and bool(self.assigned_work[node])
            self.workqueue.move_to_end(SHARED, last=not is_next)
        super()._assign_work_unit(node)
