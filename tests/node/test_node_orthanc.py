"""The node beside a PACS that others wrote: Debian's Orthanc, and dcmtk's storescu."""

import pytest
from orthanc_parts import in_namespace, needs_orthanc


@needs_orthanc
@pytest.mark.slow
def test_nothing_is_lost_or_doubled():
    """200 images, the node killed 20 times, Orthanc and server away in between: 200 results, none twice, none missing.

    The server gives each answer another UID, so an image that yielded results twice would be seen.
    """
    outcome = in_namespace("kill_run.py", "2", timeout_s=570)
    assert (outcome["results"], outcome["missing"], outcome["twice"], outcome["strangers"]) == (200, 0, 0, 0)
    assert outcome["classes"] == [outcome["capture"]]
    # The kills hit work: some images were asked about again, and most kills found images in the queue.
    assert outcome["answers"] > 200
    assert sum(n > 0 for n in outcome["held_at_kills"]) > 10
    assert (outcome["exit_code"], outcome["left"]) == (0, [])


@needs_orthanc
@pytest.mark.slow
def test_results_come_back_to_orthanc():
    """By C-STORE with storage commitment, and by DICOMweb alone; results that a search finds are not asked about."""
    outcome = in_namespace("orthanc_run.py", timeout_s=200)
    assert outcome["sources"] == outcome["expected"]
    assert outcome["counts"]["committed"] == 1
    assert [outcome["counts"][each] for each in ("accepted", "computed", "done")] == [2, 2, 2]
    assert sorted(each["path"] for each in outcome["asked"]) == ["/explanations/one", "/explanations/two/2.0"]
    assert {each["x-radlens-objects"] for each in outcome["asked"]} == {"capture,report"}
    assert {each["x-radlens-method"] for each in outcome["asked"]} == {"omig", None}
    assert outcome["left"] == []
