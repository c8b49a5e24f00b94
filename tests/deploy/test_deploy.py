"""What deploy/ starts, for real: processes, SSH and SLURM on this machine; manifests by schema."""

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
from processes import listening, words
from runs import RECORDS, undisturbed
from trainings import TRAIN, write
from voronoi import lines

pytestmark = [pytest.mark.deploy, pytest.mark.timeout(240)]

ROOT = Path(__file__).parents[2]
RUN = str(ROOT / "deploy/run.sh")
LABEL = ["label", "image.zarr", "out.zarr", "--classes", "3", "--tile", "64"]
COMMAND = ["tiledlaf", *LABEL]
TILES, FREE = 100, 36  # of the first four rows; a task may be of twelve tiles
STARTED = []
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
        assert time.monotonic() < end, f"not in {seconds} s: {what}"
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
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(whole[0] / "numba"))
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
    for folder, url, says in [
        (here / "other", address, "TLS certificate does not match"),
        (here, address, "check your TLS configuration"),
        (here, address.replace("tls", "tcp"), "no answer"),
    ]:
        monkeypatch.setenv("DASK_CONFIG", str(folder))
        another = ["tiledlaf", *LABEL[:2], "another.zarr", "--classes=3", f"--scheduler={url}"]
        assert re.fullmatch(f"tiledlaf: error: .*{says}.*\\n", finish(start(*another), 2))
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
            for daemon in reversed(daemons):
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


def sbatch():
    options = ["--cpus-per-task=2", "--mem-per-cpu=1G", "--output=job.log"]
    found = subprocess.run(
        ["sbatch", "--parsable", *options, RUN, *COMMAND],
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
    until(
        lambda: (job(number)["JobState"], job(number)["Restarts"]) == (state, str(restarts)),
        seconds,
        f"{state}: {job(number)} {Path('job.log').read_text()}",
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


def pods(document):
    """Specifications of pods: of the command first, of workers last."""
    if document["kind"] == "Job":
        return [document["spec"]["template"]["spec"]]
    cluster = document["spec"]["cluster"]["spec"]
    return [p["spec"] for p in (document["spec"]["job"], cluster["scheduler"], cluster["worker"])]


def valid(document):
    """Hold a manifest to the schemas of Kubernetes, and to the operator's own."""
    if importlib.util.find_spec("kubernetes_validate") is None:
        pytest.skip("NOT TESTED: kubernetes-validate not installed")
    import kubernetes_validate

    if document["kind"] == "Job":
        kubernetes_validate.validate(document, "1.31", strict=True)
        return
    operator = importlib.util.find_spec("dask_kubernetes")
    if operator is None:
        pytest.skip("NOT TESTED: dask-kubernetes not installed")
    import jsonschema

    shipped = "operator/deployment/helm/dask-kubernetes-operator/crds/daskjob.yaml"
    (crd,) = yaml.safe_load_all((Path(operator.origin).parent / shipped).read_text())
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
    """Documents of a folder by their kind, as kubectl puts them together."""
    (kubectl,) = needs("kubectl")
    shown = subprocess.run(
        [kubectl, "kustomize", ROOT / "deploy" / folder], capture_output=True, text=True, check=True
    ).stdout
    return {document["kind"]: document for document in yaml.safe_load_all(shown)}


@pytest.mark.parametrize("name", ["job", "daskjob"])
def test_manifests_are_valid_and_need_no_rights(name):
    document = yaml.safe_load((ROOT / f"deploy/kubernetes/{name}.yaml").read_text())
    valid(document)
    for pod in pods(document):
        assert pod["securityContext"]["runAsNonRoot"]
        assert not pod["automountServiceAccountToken"]
        (container,) = pod["containers"]
        assert not container["securityContext"]["allowPrivilegeEscalation"]
        assert not re.search("tcp:|0.0.0.0:8787", str(container["args"]))


def test_manifests_find_the_scheduler():
    """With the names that the operator makes of a DaskJob's, and the certificate's place."""
    document = yaml.safe_load((ROOT / "deploy/kubernetes/daskjob.yaml").read_text())
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
    for document in manifests("kubernetes-cuda").values():
        valid(document)
        asks, computes = (pods(document)[i]["containers"][0] for i in (0, -1))
        assert "--device=cuda" in asks["args"]
        assert computes["resources"]["limits"]["nvidia.com/gpu"] == "1"
        if asks is not computes:  # who asks needs none
            assert "nvidia.com/gpu" not in asks["resources"]["limits"]
        (option,) = {"--workers", "--nworkers"} & set(computes["args"])
        assert computes["args"][computes["args"].index(option) + 1] == "1"


def test_scripts_and_dockerfile_are_clean():
    shellcheck, hadolint = needs("shellcheck", "hadolint")
    subprocess.run([shellcheck, RUN], check=True)
    subprocess.run([hadolint, ROOT / "deploy/Dockerfile"], check=True)
