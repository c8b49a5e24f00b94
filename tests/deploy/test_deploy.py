"""What deploy/ starts, for real: processes, SSH and SLURM on this machine; manifests by schema."""

import ast
import importlib.util
import json
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import psutil
import pytest
import yaml
from faults import begun, completed, done, row
from pages import TUTORIALS, follow
from processes import kill, listening, words
from runs import RECORDS, arrays, undisturbed
from trainings import TRAIN, write
from voronoi import lines

from tiledlaf.cli.label import label

pytestmark = [pytest.mark.deploy, pytest.mark.timeout(240)]

ROOT = Path(__file__).parents[2]
RUN = str(ROOT / "deploy/run.sh")
LABEL = ["label", "image.zarr", "out.zarr", "--classes", "3", "--tile", "64"]
COMMAND = ["tiledlaf", *LABEL]
TILES, FREE = 100, 36  # of the first four rows; a task may be of twelve tiles
STARTED, DAEMONS = [], []
# in each worker: all but the first four rows of tiles wait while there is a file named hold; a
# tile that begins is noted beside it
HOLD = """
import os, time
from tiledlaf.labeling import worker as labeling_worker

def dask_setup(worker):
    def held(plan, index):
        with open(os.path.join(os.path.dirname(HOLD), "begun"), "ab", buffering=0) as file:
            file.write(f"{tuple(index)}\\n".encode())
        while index[0] > 3 and os.path.exists(HOLD):
            time.sleep(0.05)
        return undisturbed(plan, index)

    undisturbed, labeling_worker.run_tile = labeling_worker.run_tile, held
"""


def needs(*programs):
    """Where these programs are; skip without them."""
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"  # where Debian has daemons
    missing = [name for name in programs if shutil.which(name, path=path) is None]
    if missing:
        pytest.skip(f"NOT TESTED: {', '.join(missing)} not installed")
    return [shutil.which(name, path=path) for name in programs]


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def until(condition, seconds, what):
    end = time.monotonic() + seconds
    while not condition():
        late = time.monotonic() >= end
        assert not late, f"not in {seconds} s: {what() if callable(what) else what}"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A folder with an image, and what threads make of it."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, undisturbed(folder, *LABEL[3:], "--scheduler", "threads")[0]


@pytest.fixture
def here(whole, tmp_path, monkeypatch):
    """A folder with the image where runs are held after their first tiles, by two workers."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(whole[0] / "image.zarr", "image.zarr")
    Path("hold").touch()
    Path("slow.py").write_text(HOLD.replace("HOLD", repr(str(tmp_path / "hold"))))
    monkeypatch.setenv("DASK_DISTRIBUTED__WORKER__PRELOAD", str(tmp_path / "slow.py"))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    monkeypatch.setenv("WORKERS", "2")
    monkeypatch.setenv("DASHBOARD", str(free_port()))
    monkeypatch.setenv(
        "NUMBA_CACHE_DIR", os.environ.get("NUMBA_CACHE_DIR", str(whole[0] / "numba"))
    )
    for name in ("DASK_CONFIG", "INTERFACE", "HOSTS", "MEMORY"):
        monkeypatch.delenv(name, raising=False)
    needs("openssl")
    yield tmp_path
    Path("hold").unlink(missing_ok=True)
    for process in STARTED:  # of a test that failed
        process.terminate()
        process.communicate(timeout=60)
    STARTED.clear()
    until(lambda: not left(tmp_path), 60, "end of what a run started")
    assert not list(tmp_path.glob(".tiledlaf-*"))


def left(folder):
    """Processes of a run: those that work in its folder."""
    found = [p for p in psutil.process_iter(["cwd", "name"]) if p.info["cwd"] == str(folder)]
    return [p for p in found if p.pid != os.getpid()]


def asks():
    """Whether the command itself goes on."""
    return any("out.zarr" in line and line[1] != RUN for line in map(words, left(Path.cwd())))


def tiles():
    return RECORDS.read_text().count('"tile": ') if RECORDS.exists() else 0


def held():
    """Wait until all tiles but those that are held are done; those, and how many began so far."""
    until(lambda: tiles() >= FREE, 120, f"{FREE} tiles")
    known = {str(tile) for tile in done()}
    return known, len(begun())


def check(whole, fault, before):
    """The output is complete, and that of the undisturbed run; what was done is not done again."""
    known, since = before
    assert tiles() == TILES
    completed(fault, 1, whole[1], TILES)
    assert len(known) >= FREE
    assert not known.intersection(begun()[since:])


def start(*command):
    STARTED.append(
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    )
    return STARTED[-1]


def finish(process, code=0):
    out, _ = process.communicate(timeout=200)
    STARTED.remove(process)
    assert process.returncode == code, out
    return out


def cut(process, how, more=0):
    """End a run that is held, with more signals while workers compute; what it printed."""
    process.send_signal(how)
    until(lambda: not asks(), 30, "end of the command")
    for _ in range(more):
        time.sleep(0.5)
        process.send_signal(how)
    if more:
        time.sleep(1)  # for what the last would end
    Path("hold").unlink()  # workers wait for what they compute
    return finish(process, 143)


def resume(whole, fault, before):
    """The same command again, left alone."""
    assert FREE <= tiles() < TILES
    finish(start(RUN, *COMMAND))
    check(whole, fault, before)


def addresses(folder):
    """Where the processes of a run listen."""
    slurm = ("srun", "slurmstepd")
    ours = [p for p in left(folder) if p.info["name"] not in slurm]
    return {address.ip for address in listening(ours)}


def test_one_machine_cut_and_resumed(here, whole):
    process = start(RUN, *COMMAND)
    before = held()
    assert addresses(here) == {"127.0.0.1"}
    dashboard = f"http://127.0.0.1:{os.environ['DASHBOARD']}/health"
    assert urllib.request.urlopen(dashboard, timeout=10).read() == b"ok"
    assert "terminated; the same command completes" in cut(process, signal.SIGTERM)
    resume(whole, "SIGTERM to run.sh", before)


def test_one_machine_training_cut_and_resumed(here):
    for seed in range(6):
        write(Path(), seed, *lines((64, 64), cells=10, seed=seed))
    finish(start("tiledlaf", *TRAIN, "--workers", "2"))
    alone = Path("model").read_bytes()
    os.remove("model")
    process = start(RUN, "tiledlaf", *TRAIN)
    until(Path("model.checkpoint").exists, 120, "a checkpoint")
    process.send_signal(signal.SIGTERM)
    assert "the same command goes on from the last checkpoint" in finish(process, 143)
    assert not Path("model").exists()
    finish(start(RUN, "tiledlaf", *TRAIN))
    assert Path("model").read_bytes() == alone
    row("training: SIGTERM to run.sh", 1, "", "", "0 bytes")


def test_a_killed_script_leaves_nothing_behind(here):
    process = start(RUN, *COMMAND)
    held()
    process.kill()
    finish(process, -signal.SIGKILL)
    until(lambda: not left(here), 60, "end of what the script started")
    for folder in here.glob(".tiledlaf-*"):
        shutil.rmtree(folder)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_comes_again(here, whole, how):
    """While the script waits for its workers, which compute."""
    process = start(RUN, *COMMAND)
    before = held()
    cut(process, how, more=3)
    assert not left(here)
    assert not list(here.glob(".tiledlaf-*"))  # no key stays behind
    resume(whole, f"{how.name} to run.sh, four times", before)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_before_the_command_starts(here, how):
    process = start(RUN, *COMMAND)
    until(lambda: any(here.glob(".tiledlaf-*")), 10, "a start")
    process.send_signal(how)
    process.send_signal(how)
    finish(process, 143)
    assert not left(here)
    assert not Path("out.zarr").exists()


@pytest.fixture(params=["characters", "dash"])
def odd(request, here, monkeypatch):
    """The folder of the run, with the image, below one whose name a shell or YAML would read."""
    Path("hold").unlink()
    names = {
        "characters": "Smith, J's #3: {x} [1] * $(id) $HOME; ünï\nb\\\"c % &lt;",
        "dash": "-dash",
    }
    folder = here / names[request.param]
    (folder / "tmp: {x} #1").mkdir(parents=True)
    shutil.move("image.zarr", folder / "the 'image'.zarr")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("TMPDIR", str(folder / "tmp: {x} #1"))
    return folder


def odd_output(whole, folder, name):
    """Complete, and nothing else is left."""
    found = arrays(name)
    assert found.keys() == whole[1].keys()
    assert all((found[key] == whole[1][key]).all() for key in found)
    assert not list(folder.glob(".tiledlaf-*"))


def test_a_folder_of_any_name(odd, whole):
    finish(start(RUN, "tiledlaf", "label", "the 'image'.zarr", 'o; "ut".zarr', *LABEL[3:]))
    odd_output(whole, odd, 'o; "ut".zarr')


def test_a_batch(here, whole):
    """Several images on the workers of one script; one that cannot be read ends it with 1."""
    Path("hold").unlink()
    Path("images").mkdir()
    for name in "ab":
        shutil.copytree("image.zarr", f"images/{name}.zarr")
    Path("images/bad.npy").write_bytes(b"no pixels")
    images = sorted(map(str, Path("images").iterdir()))
    said = finish(start(RUN, "tiledlaf", "label", *images, "--into", "results", *LABEL[3:]), 1)
    assert "images: 2 complete, 0 with failed tiles, 1 not labeled" in said
    for name in "ab":
        odd_output(whole, here, f"results/{name}.zarr")


def test_names_that_look_like_options(here, whole):
    """Where ``--`` ends the options, also the one that the script adds."""
    Path("hold").unlink()
    os.rename("image.zarr", "-image.zarr")
    finish(start(RUN, "tiledlaf", "label", *LABEL[3:], "--", "-image.zarr", "-out.zarr"))
    odd_output(whole, here, "./-out.zarr")


@pytest.mark.parametrize("name", ["plain", "Smith, J", "run #3", "a: b {x}", 'quote"d\\', "ünï"])
def test_certificates_in_a_folder_of_any_name(tmp_path, name):
    needs("openssl")
    folder = tmp_path / name
    subprocess.run([RUN, "certificates", folder], check=True)
    shows = "import dask.config as c; print(ascii(c.get('distributed.comm.tls')))"
    found = subprocess.run(
        [sys.executable, "-c", "import distributed\n" + shows],
        env=os.environ | {"DASK_CONFIG": str(folder)},
        capture_output=True,
        check=True,
        text=True,
    )
    tls = ast.literal_eval(found.stdout)
    assert tls["ca-file"] == tls["worker"]["cert"] == str(folder / "cert.pem")
    assert tls["scheduler"]["key"] == tls["client"]["key"] == str(folder / "key.pem")
    assert (folder / "key.pem").stat().st_mode & 0o77 == 0


@pytest.mark.parametrize("name", [b"two\nlines", b"bell\a", b"not utf-8 \xff"])
def test_certificates_refuse_a_folder_that_dask_cannot_name(tmp_path, name):
    folder = os.fsencode(tmp_path) + b"/" + name
    found = subprocess.run([RUN, "certificates", folder], capture_output=True, text=True)
    assert found.returncode == 2
    assert re.fullmatch("run.sh: expected a folder name of printable .*\n", found.stderr)
    assert not os.path.exists(folder)


@pytest.mark.parametrize("array", [{}, {"SLURM_ARRAY_JOB_ID": "9", "SLURM_ARRAY_TASK_ID": "3"}])
def test_the_time_limit_before_the_command_starts(here, monkeypatch, array):
    """The job runs again; of an array this element alone, whose number may be the array's."""
    Path("bin").mkdir()
    Path("bin/scontrol").write_text('#!/bin/sh\necho "$@" >>asked\n')
    Path("bin/scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", f"{here}/bin:{os.environ['PATH']}")
    job = {"SLURM_JOB_ID": "9", "SLURM_NNODES": "1", "SLURM_RESTART_COUNT": "2"} | array
    for name, value in job.items():
        monkeypatch.setenv(name, value)
    number = "9_3" if array else "9"
    for name in (f"{number}-1-old", f"{number}-2-other", "91-1-other", "9_31-1-other"):
        Path(f".tiledlaf-{name}").mkdir()
    process = start(RUN, *COMMAND)
    until(lambda: len(list(here.glob(f".tiledlaf-{number}-2-*"))) == 2, 10, "a start")
    process.send_signal(signal.SIGUSR1)
    finish(process)
    assert Path("asked").read_text() == f"requeue {number}\n"
    # what earlier starts of this job have left is gone, and nothing else
    kept = sorted(path.name for path in here.glob(".tiledlaf-*"))
    assert kept == sorted(f".tiledlaf-{n}-other" for n in (f"{number}-2", "91-1", "9_31-1"))
    for path in here.glob(".tiledlaf-*"):
        path.rmdir()


def test_no_worker_ends_the_run(here, monkeypatch):
    monkeypatch.setenv("MEMORY", "nonsense")
    assert "no worker is left" in finish(start(RUN, *COMMAND), 143)


def test_without_the_certificate_a_client_is_refused(here, monkeypatch, whole):
    process = start(RUN, *COMMAND)
    before = held()
    (state,) = here.glob(".tiledlaf-*")
    assert state.stat().st_mode & 0o77 == 0
    address = json.loads((state / "scheduler.json").read_text())["address"]
    assert address.startswith("tls://127.0.0.1:")
    subprocess.run([RUN, "certificates", "other"], check=True)
    for folder, url, says, code in [
        (here / "other", address, "TLS certificate does not match", 2),
        (here, address, "check your TLS configuration", 2),
        (here, address.replace("tls", "tcp"), "no answer", 1),  # it answers nobody like that
    ]:
        monkeypatch.setenv("DASK_CONFIG", str(folder))
        another = ["tiledlaf", *LABEL[:2], "another.zarr", "--classes=3", f"--scheduler={url}"]
        assert re.fullmatch(f"tiledlaf: error: .*{says}.*\\n", finish(start(*another), code))
    monkeypatch.setenv("DASK_CONFIG", str(here / "other"))  # of one's own, for all parts
    cut(process, signal.SIGTERM)
    resume(whole, "SIGTERM to run.sh, with certificates of one's own", before)
    assert Path("out.zarr").stat().st_mode & 0o77  # who may read it is as ever


def test_several_hosts_need_a_network(here, monkeypatch):
    monkeypatch.setenv("HOSTS", "one two")
    assert "INTERFACE: needed" in finish(start(RUN, *COMMAND), 1)


@pytest.mark.parametrize("option", [["--device", "cuda"], ["--device=cuda"]])
def test_gpus_are_for_workers_of_dask_cuda(here, monkeypatch, option):
    (dask,) = needs("dask")
    Path("bin").mkdir()
    Path("bin/dask").write_text(
        f'#!/bin/sh\n[ $1 = cuda ] || exec {dask} "$@"\necho "$*" >worker\nexit 1\n'
    )
    Path("bin/dask").chmod(0o755)
    monkeypatch.setenv("PATH", f"{here}/bin:{os.environ['PATH']}")
    finish(start(RUN, "sh", "-c", "exec sleep 60", *option), 143)
    started = Path("worker").read_text().split()
    assert started[:2] == ["cuda", "worker"]
    assert "--nworkers" not in started  # which dask-cuda does not know
    assert started[started.index("--memory-limit") + 1] == "auto"


@pytest.fixture
def ssh(here, monkeypatch):
    """An sshd on loopback with keys of its own; ssh knows it as the hosts one and two."""
    sshd, keygen, client = needs("sshd", "ssh-keygen", "ssh")
    folder = here / "ssh"
    folder.mkdir(mode=0o700)
    port, user = free_port(), pwd.getpwuid(os.getuid()).pw_name
    for name in ("host", "user"):
        subprocess.run([keygen, "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    (folder / "known").write_text(f"[127.0.0.1]:{port} {(folder / 'host.pub').read_text()}")
    kept = ("DASK_DISTRIBUTED__WORKER__PRELOAD", "NUMBA_CACHE_DIR")
    environment = " ".join(f"{name}={os.environ[name]}" for name in kept)
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nPidFile none\n"
        f"AuthorizedKeysFile {folder}/user.pub\nStrictModes no\nUsePAM no\nSetEnv {environment}\n"
        "PasswordAuthentication no\nPermitRootLogin prohibit-password\n"
    )
    (folder / "config").write_text(
        f"Host one two\nHostName 127.0.0.1\nPort {port}\nUser {user}\nIdentitiesOnly yes\n"
        f"IdentityFile {folder}/user\nUserKnownHostsFile {folder}/known\n"
    )
    # as the user's own ~/.ssh/config would
    (folder / "bin").mkdir()
    (folder / "bin/ssh").write_text(f'#!/bin/sh\nexec {client} -F {folder}/config "$@"\n')
    (folder / "bin/ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}/bin:{os.environ['PATH']}")
    monkeypatch.setenv("HOSTS", "one two")
    monkeypatch.setenv("INTERFACE", "lo")
    monkeypatch.setenv("WORKERS", "1")
    if os.getuid() == 0:
        os.makedirs("/run/sshd", exist_ok=True)
    process = subprocess.Popen(
        [sshd, "-D", "-e", "-f", folder / "sshd_config"], cwd="/", stderr=subprocess.DEVNULL
    )
    yield process
    process.terminate()
    process.wait()


def test_ssh_hosts_cut_and_resumed(ssh, here, whole):
    process = start(RUN, *COMMAND)
    before = held()
    assert addresses(here) == {"127.0.0.1"}
    cut(process, signal.SIGINT)
    resume(whole, "Ctrl-C, SSH hosts", before)


def test_ssh_a_host_is_lost(ssh, here, whole):
    process = start(RUN, *COMMAND)
    before = held()
    sessions = psutil.Process(ssh.pid).children()
    assert len(sessions) == 2
    sessions[0].kill()
    Path("hold").unlink()
    finish(process)
    check(whole, "SSH host lost", before)


def test_ssh_from_a_folder_of_any_name(ssh, odd, whole):
    finish(start(RUN, "tiledlaf", "label", "the 'image'.zarr", "out.zarr", *LABEL[3:]))
    odd_output(whole, odd, "out.zarr")


SLURM_CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
# a job that runs again waits as long as credentials live
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SlurmdParameters=config_overrides
ReturnToService=0
SlurmdTimeout=20
KillWait=5
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=4 RealMemory=8000
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=4 RealMemory=8000
NodeName=n3 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[3]} CPUs=4 RealMemory=8000
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


@pytest.fixture(scope="module")
def _slurm(tmp_path_factory):
    """A SLURM of three nodes on this host, in a folder of its own."""
    munged, mungekey, slurmctld, slurmd, _ = needs(
        "munged", "mungekey", "slurmctld", "slurmd", "sbatch"
    )
    if os.getuid() != 0:
        pytest.skip("NOT TESTED: slurmd starts for root only")
    folder = tmp_path_factory.mktemp("slurm")
    for parent in (folder, *folder.parents[:3]):  # munge wants to be reached by all
        parent.chmod(0o755)
    conf = folder / "slurm.conf"
    host, user = socket.gethostname().split(".")[0], pwd.getpwuid(os.getuid()).pw_name
    conf.write_text(
        SLURM_CONF.format(folder=folder, host=host, user=user, ports=[free_port() for _ in "0123"])
    )
    (folder / "state").mkdir()
    subprocess.run([mungekey, "-c", "-k", folder / "munge.key"], check=True)
    with pytest.MonkeyPatch.context() as patch, open(folder / "log", "w") as log:
        patch.setenv("SLURM_CONF", str(conf))
        daemons = [
            subprocess.Popen(command, cwd="/", stdout=log, stderr=log)
            for command in (
                [
                    munged,
                    "-F",
                    "-f",
                    f"--key-file={folder}/munge.key",
                    f"--socket={folder}/munge.socket",
                    f"--pid-file={folder}/munge.pid",
                    f"--log-file={folder}/munge.log",
                    f"--seed-file={folder}/munge.seed",
                ],
                [slurmctld, "-D", "-c"],
                *([slurmd, "-D", "-N", f"n{i}"] for i in (1, 2, 3)),
            )
        ]
        try:
            until(lambda: sinfo() == {"idle"} or any(d.poll() for d in daemons), 60, "idle nodes")
            assert sinfo() == {"idle"}, (folder / "log").read_text()
            yield folder
        finally:
            for daemon in reversed(daemons + DAEMONS):
                daemon.terminate()
                daemon.wait(30)


def sinfo():
    found = subprocess.run(["sinfo", "-hNo", "%T"], capture_output=True, text=True)
    return set(found.stdout.split())


@pytest.fixture
def slurm(_slurm, here, monkeypatch):
    monkeypatch.setenv("INTERFACE", "lo")
    monkeypatch.setenv("WORKERS", "1")
    yield _slurm
    subprocess.run(["scancel", "--me"], check=True)
    until(lambda: sinfo() == {"idle"}, 60, "idle nodes")


def sbatch(*options, command=COMMAND):
    options = ["--cpus-per-task=2", "--mem-per-cpu=1G", "--output=job.log", *options]
    found = subprocess.run(
        ["sbatch", "--parsable", *options, RUN, *command],
        check=True,
        capture_output=True,
        text=True,
    )
    return found.stdout.strip()


def job(number):
    """What SLURM says about a job."""
    found = subprocess.run(["scontrol", "show", "job", number], capture_output=True, text=True)
    return dict(re.findall(r"(\w+)=(\S*)", found.stdout))


def becomes(number, state, restarts, seconds=120):
    log = Path("job.log")  # made when the job begins
    until(
        lambda: (job(number)["JobState"], job(number)["Restarts"]) == (state, str(restarts)),
        seconds,
        lambda: f"{state}: {job(number)} {log.read_text() if log.exists() else 'no log'}",
    )


def test_slurm_time_limit(slurm, here, whole):
    number = sbatch()
    before = held()
    assert job(number)["NumNodes"] == "2"
    assert addresses(here) == {"127.0.0.1"}
    # SLURM looks twice a minute which limits are near
    subprocess.run(["scontrol", "update", f"JobId={number}", "TimeLimit=2"], check=True)
    until(lambda: "tiledlaf: terminated" in Path("job.log").read_text(), 120, "the signal")
    Path("hold").unlink()
    until(lambda: job(number)["Restarts"] == "1", 60, "the job runs again")
    assert tiles() < TILES
    subprocess.run(["scontrol", "update", f"JobId={number}", "TimeLimit=60"], check=True)
    becomes(number, "COMPLETED", 1)
    check(whole, "time limit, SLURM", before)


def test_slurm_a_node_goes_down(slurm, here, whole):
    number = sbatch()
    before = held()
    down = f"NodeName={job(number)['BatchHost']}"
    subprocess.run(["scontrol", "update", down, "State=DOWN", "Reason=test"], check=True)
    try:
        Path("hold").unlink()
        becomes(number, "COMPLETED", 1)
    finally:
        subprocess.run(["scontrol", "update", down, "State=RESUME"], check=True)
    check(whole, "node down, SLURM", before)


def die(node, folder):
    """Kill all that a node runs, at once; its slurmd first."""
    slurmd = psutil.Process(int((folder / f"slurmd-{node}.pid").read_text()))
    slurmd.kill()
    ours = [p for p in left(Path.cwd()) if environment(p).get("SLURMD_NODENAME") == node]
    for process in {parent for p in ours for parent in p.parents()} | set(ours):
        if process in ours or process.name().startswith("slurmstepd"):
            kill(process)


def environment(process):
    try:
        return process.environ()
    except psutil.NoSuchProcess:
        return {}


def test_slurm_a_node_dies(slurm, here, whole):
    """The one with the scheduler, the command and the script itself."""
    number = sbatch()
    before = held()
    node = job(number)["BatchHost"]
    die(node, slurm)
    try:
        until(lambda: job(number)["Restarts"] == "1", 120, "SLURM sees that the node is dead")
        Path("hold").unlink()
        becomes(number, "COMPLETED", 1)
    finally:
        daemon = subprocess.Popen(
            [*needs("slurmd"), "-D", "-N", node], cwd="/", stderr=subprocess.DEVNULL
        )
        DAEMONS.append(daemon)
        subprocess.run(["scontrol", "update", f"NodeName={node}", "State=RESUME"], check=True)
    check(whole, "node dies, SLURM", before)


def test_slurm_array_of_images(slurm, here, whole):
    """Each element has its image, scheduler and time limit; one that runs again goes on."""
    for number in range(2):
        shutil.copytree("image.zarr", f"slide {number}.zarr")
    Path("slide.sh").write_text(
        "slides=(slide*.zarr)\nslide=${slides[$SLURM_ARRAY_TASK_ID]}\n"
        f'exec tiledlaf label "$slide" "out of $slide" {" ".join(LABEL[3:])} "$@"\n'
    )
    number = sbatch("--array=0-1", "--nodes=1", command=["bash", "slide.sh"])
    outputs = [Path(f"out of slide {i}.zarr") for i in range(2)]
    records = [output.joinpath(*RECORDS.parts[1:]) for output in outputs]

    def tiles():
        return [p.read_text().count('"tile": ') if p.exists() else 0 for p in records]

    until(lambda: min(tiles()) >= FREE, 120, f"{FREE} tiles of each")
    assert len(list(here.glob(f".tiledlaf-{number}_[01]-0-*"))) == 2
    last = f"{number}_1"  # which has the array's own number
    assert job(last)["JobId"] == number
    subprocess.run(["scancel", "--batch", "--signal=USR1", last], check=True)
    until(lambda: "tiledlaf: terminated" in Path("job.log").read_text(), 60, "the signal")
    Path("hold").unlink()
    becomes(last, "COMPLETED", 1)
    becomes(f"{number}_0", "COMPLETED", 0)
    for output in outputs:
        odd_output(whole, here, str(output))
    assert tiles() == [TILES, TILES]  # none was labeled twice


def test_slurm_batch_as_the_tutorial_says(slurm, here):
    said = dict(follow(TUTORIALS / "batch.md", here))
    assert "Submitted batch job" in next(out for line, out in said.items() if "sbatch" in line)
    assert "images: 4 complete" in Path("job.log").read_text()


def test_slurm_array_on_one_output(slurm, here, whole):
    """Elements with the same command share its output, whichever is first."""
    Path("hold").unlink()
    number = sbatch("--array=0-1", "--nodes=1")
    for i in range(2):
        becomes(f"{number}_{i}", "COMPLETED", 0)
    odd_output(whole, here, "out.zarr")


def test_slurm_from_a_folder_of_any_name(slurm, odd, whole):
    # SLURM itself makes no log in a folder whose name has a backslash or a percent sign
    log = f"--output={odd.parent}/job.log"
    number = sbatch(log, command=["tiledlaf", "label", "the 'image'.zarr", "out.zarr", *LABEL[3:]])
    becomes(number, "COMPLETED", 0)
    odd_output(whole, odd, "out.zarr")


def test_slurm_cancelled_and_given_again(slurm, here, whole):
    number = sbatch()
    before = held()
    subprocess.run(["scancel", number], check=True)
    becomes(number, "CANCELLED", 0)
    until(lambda: sinfo() == {"idle"}, 60, "idle nodes")
    for folder in here.glob(".tiledlaf-*"):  # what SLURM kills cannot clean up
        shutil.rmtree(folder)
    Path("hold").unlink()
    becomes(sbatch(), "COMPLETED", 0)
    check(whole, "scancel, SLURM", before)


def closed(node):
    """A schema in which fields that it does not name are errors."""
    if isinstance(node, list):
        return [closed(value) for value in node]
    if not isinstance(node, dict):
        return node
    found = {key: closed(value) for key, value in node.items()}
    if "properties" in node and "x-kubernetes-preserve-unknown-fields" not in node:
        found.setdefault("additionalProperties", False)
    return found


def shipped(name):
    """Documents of a manifest: what runs, and its network policy."""
    return list(yaml.safe_load_all((ROOT / f"deploy/kubernetes/{name}.yaml").read_text()))


def pods(document):
    """Specifications of pods: of the command first, of workers last."""
    if document["kind"] == "NetworkPolicy":
        return []
    if document["kind"] == "Job":
        return [document["spec"]["template"]["spec"]]
    cluster = document["spec"]["cluster"]["spec"]
    return [p["spec"] for p in (document["spec"]["job"], cluster["scheduler"], cluster["worker"])]


def valid(document):
    """Hold a manifest to the schemas of Kubernetes, and to the operator's own."""
    if importlib.util.find_spec("kubernetes_validate") is None:
        pytest.skip("NOT TESTED: kubernetes-validate not installed")
    import kubernetes_validate

    if document["kind"] != "DaskJob":
        kubernetes_validate.validate(document, "1.31", strict=True)
        return
    operator = importlib.util.find_spec("dask_kubernetes")
    if operator is None:
        pytest.skip("NOT TESTED: dask-kubernetes not installed")
    import jsonschema

    where = "operator/deployment/helm/dask-kubernetes-operator/crds/daskjob.yaml"
    (crd,) = yaml.safe_load_all((Path(operator.origin).parent / where).read_text())
    schema = closed(crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"])
    for key in ("apiVersion", "kind", "metadata"):
        schema["properties"].setdefault(key, {})
    schema["properties"]["metadata"] = {}
    jsonschema.validate(document, schema)
    # the operator's schema knows less about pods than Kubernetes
    for spec in pods(document):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": spec}
        kubernetes_validate.validate(pod, "1.31", strict=True)


def manifests(folder):
    """Documents of a folder, as kubectl puts them together."""
    (kubectl,) = needs("kubectl")
    shown = subprocess.run(
        [kubectl, "kustomize", ROOT / "deploy" / folder], capture_output=True, text=True, check=True
    ).stdout
    return list(yaml.safe_load_all(shown))


def size(text):
    """Bytes of a quantity as 20Gi."""
    return int(text[:-2]) * 2 ** (10 * " KMGT".index(text[-2]))


@pytest.mark.parametrize("name", ["job", "daskjob"])
def test_manifests_are_valid_and_need_no_rights(name):
    runs, policy = shipped(name)
    valid(runs)
    valid(policy)
    for pod in pods(runs):
        user = pod["securityContext"]
        assert user["runAsNonRoot"]
        assert user["seccompProfile"]["type"] == "RuntimeDefault"
        assert not pod["automountServiceAccountToken"]
        assert not pod["enableServiceLinks"]
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
        (container,) = pod["containers"]
        least = container["securityContext"]
        assert not least["allowPrivilegeEscalation"]
        assert least["readOnlyRootFilesystem"]
        assert least["capabilities"] == {"drop": ["ALL"]}
        assert not re.search("tcp:|0.0.0.0:8787", str(container["args"]))


@pytest.mark.parametrize("name", ["job", "daskjob"])
def test_manifests_take_no_more_than_they_say(name):
    for pod in pods(shipped(name)[0]):
        (container,) = pod["containers"]
        asked, most = container["resources"]["requests"], container["resources"]["limits"]
        assert asked.keys() >= {"cpu", "memory", "ephemeral-storage"}
        assert asked["memory"] == most["memory"]
        written = {mount["name"] for mount in container["volumeMounts"]}
        empty = [volume for volume in pod["volumes"] if "emptyDir" in volume]
        assert written == {volume["name"] for volume in pod["volumes"]}
        scratch = sum(size(volume["emptyDir"]["sizeLimit"]) for volume in empty)
        assert 0 < scratch < size(most["ephemeral-storage"])  # and logs
        # what the image writes beside its output: compiled kernels, what Dask spills
        (place,) = [m["mountPath"] for m in container["volumeMounts"] if m["name"] == "scratch"]
        dockerfile = (ROOT / "deploy/Dockerfile").read_text()
        (environment,) = re.findall("^ENV (.*)$", dockerfile, re.MULTILINE)
        for variable in environment.split():
            assert Path(variable.split("=")[1]).is_relative_to(place)


@pytest.mark.parametrize("name", ["job", "daskjob"])
def test_manifests_label_all_images_of_a_folder(name):
    """Their words are those of the command, which replaces the glob itself."""
    words = pods(shipped(name)[0])[0]["containers"][0]["args"]
    words = words[words.index("tiledlaf") + 2 :]
    given = label.make_context("label", list(words)).params
    assert (given["paths"], given["into"], given["classes"]) == (("slides/*",), "results", 3)


def test_a_mistake_is_not_repeated():
    """Code 2 ends the job, what was cut goes on; by pods or by the image's own script."""
    job, daskjob = (shipped(name)[0] for name in ("job", "daskjob"))
    rules = {rule["action"]: rule for rule in job["spec"]["podFailurePolicy"]["rules"]}
    (pod,) = pods(job)
    codes = rules["FailJob"]["onExitCodes"]
    assert (codes["operator"], codes["values"]) == ("In", [2])
    assert codes["containerName"] == pod["containers"][0]["name"]
    assert rules["Ignore"]["onPodConditions"][0]["type"] == "DisruptionTarget"
    assert pod["restartPolicy"] == "Never"  # else Kubernetes refuses the policy
    command = pods(daskjob)[0]
    assert command["restartPolicy"] == "Never"
    assert command["containers"][0]["args"][:2] == ["again", "tiledlaf"]
    assert "/usr/local/bin/again" in (ROOT / "deploy/Dockerfile").read_text()
    for each in (pod, command):  # a run that is stopped waits for its tiles
        assert each["terminationGracePeriodSeconds"] > 60


def test_nobody_else_reaches_the_pods():
    job, alone = shipped("job")
    labels = job["spec"]["template"]["metadata"]["labels"]
    assert alone["spec"]["podSelector"]["matchLabels"].items() <= labels.items()
    assert not {"ingress", "egress"} & alone["spec"].keys()  # none
    daskjob, cluster = shipped("daskjob")
    # the operator gives this label to all of its pods
    ours = {"matchLabels": {"dask.org/cluster-name": daskjob["metadata"]["name"]}}
    assert cluster["spec"]["podSelector"] == ours
    assert cluster["spec"]["ingress"] == [{"from": [{"podSelector": ours}]}]
    to_ours, dns = cluster["spec"]["egress"]
    assert to_ours == {"to": [{"podSelector": ours}]}
    assert {port["port"] for port in dns["ports"]} == {53}
    for policy in (alone, cluster):
        assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]


def test_manifests_find_the_scheduler():
    """With the names that the operator makes of a DaskJob's, and the certificate's place."""
    document = shipped("daskjob")[0]
    command, scheduler, worker = (pod["containers"][0] for pod in pods(document))
    address = f"tls://{document['metadata']['name']}-scheduler:8786"
    assert address in command["args"]
    assert address in worker["args"]
    service = document["spec"]["cluster"]["spec"]["scheduler"]["service"]
    assert service["selector"]["dask.org/cluster-name"] == document["metadata"]["name"]
    assert {port["name"] for port in service["ports"]} >= {"tcp-comm"}
    places = {mount["mountPath"] for mount in scheduler["volumeMounts"]}
    for container in (command, scheduler, worker):
        (config,) = [e["value"] for e in container["env"] if e["name"] == "DASK_CONFIG"]
        assert config in places


def test_manifests_with_gpus():
    found = manifests("kubernetes-cuda")
    for document in found:
        valid(document)
    for document in [each for each in found if pods(each)]:
        asks, computes = (pods(document)[i]["containers"][0] for i in (0, -1))
        assert "--device=cuda" in asks["args"]
        assert computes["resources"]["limits"]["nvidia.com/gpu"] == "1"
        if asks is not computes:  # who asks needs none
            assert "nvidia.com/gpu" not in asks["resources"]["limits"]
        (option,) = {"--workers", "--nworkers"} & set(computes["args"])
        assert computes["args"][computes["args"].index(option) + 1] == "1"


def test_scripts_and_dockerfile_are_clean():
    shellcheck, hadolint = needs("shellcheck", "hadolint")
    subprocess.run([shellcheck, *ROOT.glob("deploy/*.sh"), ROOT / ".ci/light"], check=True)
    subprocess.run([hadolint, ROOT / "deploy/Dockerfile"], check=True)
