"""What the system says of itself, read from made-up systems, and what is said about it."""

import dataclasses
import doctest
import os
import types

import pytest
import torch

from resnets.studies import commands, diagnosis, machine_limits, run_limits
from resnets.studies import machine_facts as machine_facts_module
from resnets.studies.machine_facts import Gpu, MachineFacts, machine_facts, quota_cores
from resnets.studies.machine_limits import machine_findings
from resnets.studies.neighbours import Load, Neighbour, load_of_others

GIB = 2**30
SOUND = MachineFacts(
    python="3.12.1",
    versions={"torch": "2.14.0"},
    platform="Linux",
    processor="A processor",
    cores=8,
    machine_cores=8,
    physical_cores=8,
    quota_cores=None,
    threads=8,
    variables={},
    memory_bytes=32 * GIB,
    available_bytes=28 * GIB,
    swap_used_bytes=0,
    shared_memory_bytes=16 * GIB,
    shared_memory_free_bytes=16 * GIB,
    open_files=65_536,
    open_files_limit=65_536,
    allocator="glibc",
    governor="performance",
    load=Load(busy_cores=0.1, neighbours=()),
    gpus=(),
    mps=False,
)


@pytest.mark.parametrize("module", [commands, diagnosis, machine_limits])
def test_the_examples_of_docstrings_hold(module):
    assert doctest.testmod(module).failed == 0


def test_a_sound_machine_has_no_warning():
    assert not [finding for finding in machine_findings(SOUND) if finding.state == "warning"]


@pytest.mark.parametrize(
    ("changes", "subject", "fix"),
    [
        ({"shared_memory_free_bytes": 64 * 2**20}, "shared memory", "--shm-size"),
        ({"open_files": 1024}, "open files", "ulimit -n 65536"),
        ({"open_files": 1024, "open_files_limit": 1024}, "open files", "limits.conf"),
        ({"quota_cores": 2.5}, "processor", "--threads 2"),
        ({"quota_cores": 2.5, "gpus": (Gpu(name="G", total_bytes=GIB, free_bytes=GIB),)}, "processor", "--workers 2"),
        ({"threads": 16}, "processor", "--threads 8"),
        ({"available_bytes": GIB}, "memory", "fewer --workers"),
        ({"swap_used_bytes": 8 * GIB}, "memory", "swapped out"),
        ({"load": Load(busy_cores=1.2, neighbours=())}, "other programs", "OMP_WAIT_POLICY=PASSIVE"),
        ({"gpus": (Gpu(name="G", total_bytes=80 * GIB, free_bytes=10 * GIB),)}, "device", "nvidia-smi"),
        ({"gpus": (Gpu(name="G", total_bytes=GIB, free_bytes=None, problem="busy"),)}, "device", "--device cuda:N"),
        ({"mps": True, "threads": 16}, "processor", "--workers 8"),
    ],
)
def test_each_danger_is_one_warning_that_says_what_to_do(changes, subject, fix):
    warnings = [
        finding for finding in machine_findings(dataclasses.replace(SOUND, **changes)) if finding.state == "warning"
    ]
    assert [finding.subject for finding in warnings] == [subject]
    assert fix in warnings[0].fix


def test_a_gpu_that_lets_nobody_in_hides_no_other(monkeypatch):
    def memory(index):
        if index == 1:
            raise RuntimeError("CUDA error: out of memory\nSearch for it in the documentation")
        return 7 * GIB, 8 * GIB

    properties = types.SimpleNamespace(name="G", total_memory=8 * GIB)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: properties)
    monkeypatch.setattr(torch.cuda, "mem_get_info", memory)
    free = Gpu(name="G", total_bytes=8 * GIB, free_bytes=7 * GIB)
    full = Gpu(name="G", total_bytes=8 * GIB, free_bytes=None, problem="CUDA error: out of memory")
    gpus = machine_facts_module._gpus()
    assert gpus == (free, full, free)
    devices = [one for one in machine_findings(dataclasses.replace(SOUND, gpus=gpus)) if one.subject == "device"]
    assert [one.state for one in devices] == ["ok", "warning", "ok"]
    assert devices[1].text == "cuda:1 G cannot be used: CUDA error: out of memory"


def test_advice_on_the_allocator_is_for_linux():
    states = []
    for platform in ("Linux-6.1-x86_64-with", "macOS-15.1-arm64-arm-64bit", "Windows-11-10.0"):
        facts = dataclasses.replace(SOUND, allocator="the system's", platform=platform)
        states += [finding.state for finding in machine_findings(facts) if finding.subject == "allocator"]
    assert states == ["note", "ok", "ok"]


def test_a_neighbour_is_named_and_passive_waiting_is_not_advised_twice():
    load = Load(busy_cores=1.0, neighbours=(Neighbour(pid=7, name="miner", cores=1.0),))
    facts = dataclasses.replace(SOUND, load=load, variables={"OMP_WAIT_POLICY": "passive"})
    finding = next(finding for finding in machine_findings(facts) if finding.subject == "other programs")
    assert "miner (1.0, process 7)" in finding.text
    assert "OMP_WAIT_POLICY" not in finding.fix


def test_a_little_background_on_many_cores_is_no_warning():
    facts = dataclasses.replace(SOUND, machine_cores=64, load=Load(busy_cores=1.0, neighbours=()))
    assert not [finding for finding in machine_findings(facts) if finding.subject == "other programs" and finding.fix]


def test_busy_neighbours_are_no_warning_where_enough_cores_are_left():
    facts = dataclasses.replace(SOUND, cores=2, threads=2, load=Load(busy_cores=5.0, neighbours=()))
    states = {finding.subject: finding.state for finding in machine_findings(facts)}
    assert states["other programs"] == "note"


def test_what_counts_are_the_cores_that_this_process_may_use():
    facts = dataclasses.replace(SOUND, cores=2, threads=2, load=Load(busy_cores=2.0, busy_here=2.0, neighbours=()))
    findings = {finding.subject: finding for finding in machine_findings(facts)}
    assert findings["other programs"].state == "warning"
    assert "of the 2 cores that this process may use, they keep 2.0 busy" in findings["other programs"].text
    assert "2 of 8 cores" in findings["processor"].text
    beside = dataclasses.replace(facts, load=Load(busy_cores=6.0, busy_here=0.0, neighbours=()))
    assert {one.subject: one.state for one in machine_findings(beside)}["other programs"] == "note"


def test_the_threads_of_torch_are_not_said_to_be_those_of_a_run_that_sets_its_own():
    finding = next(finding for finding in machine_findings(SOUND) if finding.subject == "processor")
    assert finding.text == "A processor, 8 cores; torch computes with 8 unless --threads says otherwise"


def test_one_thread_on_half_a_core_has_no_remedy():
    facts = dataclasses.replace(SOUND, cores=1, machine_cores=8, threads=1, quota_cores=0.5)
    finding = next(finding for finding in machine_findings(facts) if finding.subject == "processor")
    assert (finding.state, finding.fix) == ("ok", "")
    assert "may use 0.5" in finding.text


def test_one_thread_waits_for_no_other():
    facts = dataclasses.replace(SOUND, cores=1, machine_cores=1, physical_cores=1, threads=1)
    busy = dataclasses.replace(facts, load=Load(busy_cores=1.0, neighbours=()))
    finding = next(finding for finding in machine_findings(busy) if finding.subject == "other programs")
    assert finding.state == "warning"
    assert "OMP_WAIT_POLICY" not in finding.fix


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_the_load_is_what_others_computed_meanwhile(tmp_path):
    ticks = os.sysconf("SC_CLK_TCK")

    def write_system(user, ours, theirs):
        write(tmp_path / "stat", f"cpu {user} 0 0 5000 100 0 0 0 30 0\ncpu0 1 2 3\ncpu1 {user // 2} 0 3 9\nintr 7\n")
        write(tmp_path / str(os.getpid()) / "stat", f"{os.getpid()} (me) R {'0 ' * 10}{ours} 0 0")
        write(tmp_path / "77" / "stat", f"77 (a (b) c) R {'0 ' * 10}{theirs} {theirs} 0 0")
        write(tmp_path / "78" / "stat", f"78 (idle) S {'0 ' * 10}5 5 0 0")

    write_system(1000, 0, 0)
    load = load_of_others(
        tmp_path, seconds=1.0, wait=lambda _: write_system(1000 + 2 * ticks, 9 * ticks, ticks), usable=[1]
    )
    assert load is not None
    assert load.busy_cores == pytest.approx(2.0)
    assert load.busy_here == pytest.approx(1.0)
    assert load.neighbours == (Neighbour(pid=77, name="a (b) c", cores=2.0),)


def test_a_system_that_does_not_tell_the_load_gives_none(tmp_path):
    assert load_of_others(tmp_path, wait=lambda _: None) is None
    write(tmp_path / "stat", "cpu 1 2 3 4\n")
    load = load_of_others(tmp_path, wait=lambda _: None, usable=[0])
    assert load is not None
    assert load.busy_here is None


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"proc/self/cgroup": "0::/job/step\n", "sys/fs/cgroup/job/cpu.max": "250000 100000\n"}, 2.5),
        (
            {
                "proc/self/cgroup": "0::/job\n",
                "sys/fs/cgroup/job/cpu.max": "400000 100000\n",
                "sys/fs/cgroup/cpu.max": "150000 100000\n",
            },
            1.5,
        ),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, None),
        (
            {
                "proc/self/cgroup": "3:cpu,cpuacct:/x\n4:memory:/y\n",
                "sys/fs/cgroup/cpu/x/cpu.cfs_quota_us": "300000\n",
                "sys/fs/cgroup/cpu/x/cpu.cfs_period_us": "100000\n",
            },
            3.0,
        ),
        (
            {
                "proc/self/cgroup": "3:cpu:/x\n",
                "sys/fs/cgroup/cpu/x/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/x/cpu.cfs_period_us": "100000\n",
            },
            None,
        ),
        ({}, None),
    ],
)
def test_the_processor_time_of_a_container_is_the_least_of_its_groups(tmp_path, files, cores):
    for name, text in files.items():
        write(tmp_path / name, text)
    assert quota_cores(tmp_path) == cores


def test_the_facts_of_a_made_up_system_are_those_of_its_files(tmp_path):
    write(tmp_path / "proc/meminfo", "MemTotal: 1000 kB\nMemAvailable: 400 kB\nSwapTotal: 100 kB\nSwapFree: 40 kB\n")
    write(tmp_path / "proc/self/maps", "7f00-7f01 r-xp 0 08:01 1 /usr/lib/libjemalloc.so.2\n")
    for core in range(64):
        write(tmp_path / f"sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list", f"{core // 2}\n")
    facts = machine_facts(tmp_path, variables={"OMP_NUM_THREADS": "3", "HOME": "/"})
    assert (facts.memory_bytes, facts.available_bytes, facts.swap_used_bytes) == (1_024_000, 450_560, 61_440)
    assert facts.allocator == "jemalloc"
    assert facts.variables == {"OMP_NUM_THREADS": "3"}
    assert facts.load is None
    assert facts.physical_cores is not None
    assert facts.physical_cores <= facts.cores


MOUNTS = """\
22 1 254:0 / / rw - ext4 /dev/vda rw
30 22 0:40 / /mnt/big\\040data rw,relatime shared:1 - nfs4 server:/x rw
31 30 0:41 / /mnt/big\\040data/local rw - xfs /dev/vdb rw
32 22 0:42 / /gone rw - fuse.sshfs me@there: rw
broken line
"""


@pytest.mark.parametrize(
    ("path", "kind", "remote"),
    [
        ("/mnt/big data/a/b", "nfs4", True),
        ("/mnt/big data/local/a", "xfs", False),
        ("/mnt/big dat", "ext4", False),
        ("/gone", "fuse.sshfs", True),
    ],
)
def test_the_file_system_of_a_path_is_the_innermost_that_holds_it(tmp_path, path, kind, remote):
    from pathlib import Path

    write(tmp_path / "mountinfo", MOUNTS)
    mount = run_limits.mount_of(Path(path), tmp_path / "mountinfo")
    assert mount is not None
    assert (mount.kind, mount.is_remote) == (kind, remote)
    assert run_limits.mount_of(Path(path), tmp_path / "nowhere") is None
