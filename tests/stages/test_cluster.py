"""Parts as tasks on two real nodes, one of which is killed in the middle: the files of a run on one machine."""

import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

import coderl
from coderl.recipe import load_recipe
from coderl.stages.cluster import Chosen
from coderl.stages.console import Reporter
from coderl.stages.run import run
from coderl.stages.stage import Cluster
from coderl.stages.verify import compare
from coderl.types import InputError

RECIPE = Path(coderl.__file__).parent / "verify.toml"


def test_a_task_writes_its_part_and_nothing_else():
    chosen = Chosen([2])
    assert not chosen.is_main
    assert list(chosen.deal([0, 2, 3], lambda number: None)) == [2]


def test_without_ray_the_extra_is_named(tmp_path, monkeypatch):
    from coderl.stages.cluster import ClusterGroup, Task

    monkeypatch.setitem(sys.modules, "ray", None)
    group = ClusterGroup(Task("m", "f", tmp_path, tmp_path, None), {}, address=None, needs_model=True)
    assert list(group.deal([], lambda number: None)) == []
    with pytest.raises(InputError, match=r"coderl\[ray\]"):
        list(group.deal([0], lambda number: None))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_node_killed_midway_changes_no_byte(tmp_path, monkeypatch):
    """Sampling, execution, scoring, search: equal to one machine's, though a node goes while it has parts."""
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster as LocalCluster

    config, quiet = load_recipe(RECIPE, ["--rounds.num-rounds=1"]), Reporter(quiet=True)
    run(config, tmp_path / "here", quiet)
    store = {"object_store_memory": 80 << 20}
    cluster = LocalCluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False, **store})
    lost: list[object] = []
    try:
        node = cluster.add_node(num_cpus=1, **store)
        ray.init(address=cluster.address, log_to_driver=False)

        class Kills(Reporter):
            """Kills the second node once the first part of the round's programs has come, and others are under way."""

            @contextmanager
            def progress(self, title, **given):
                with super().progress(title, **given) as bar:
                    if title.startswith("drawing 3 programs") and not lost:
                        bar.show = lambda: self.kill(bar.done)
                    yield bar

            def kill(self, done: int) -> None:
                if done and not lost:
                    lost.append(node)
                    cluster.remove_node(node, allow_graceful=False)

        run(config, tmp_path / "there", Kills(quiet=True), Cluster(cluster.address))
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert lost
    found = compare(tmp_path / "here", tmp_path / "there")
    assert len(found) > 20
    assert [each for each in found if each.differing] == []
