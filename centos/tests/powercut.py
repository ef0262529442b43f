"""Clients that write as fast as they can and note what was acknowledged, and the check of what a daemon says of it afterwards."""

import hashlib
import http.client
import threading
import time
import uuid

GONE = (OSError, http.client.HTTPException)  # what a client sees of a server that dies


def digests(files):
    return {name: hashlib.sha256(data).hexdigest() for name, data in files}


class Ledger:
    """What was sent, and what of it the daemon acknowledged. Experiments are known by their names, which are random."""

    def __init__(self):
        self.sent, self.acknowledged = {}, set()  # {experiment: {file: sha256}}
        self.results_sent, self.results_acknowledged = {}, set()  # {id: [{file: sha256}]}: a claim can come twice
        self.strange = []  # answers that nobody should get
        self.whole = set()  # ids whose files have been read

    def check_list(self, listed):
        """All that was acknowledged is listed, and nothing that is not as it was sent."""
        names = {found["experimentName"]: found for found in listed.values()}
        assert len(names) == len(listed)
        assert self.acknowledged <= names.keys(), f"lost: {self.acknowledged - names.keys()}"
        assert names.keys() <= self.sent.keys()
        for name, found in names.items():
            assert sorted(found["inputs"]) == sorted(self.sent[name]), found
            possible = [sorted(results) for results in self.results_sent.get(found["id"], ())]
            assert sorted(found["outputs"]) in possible if found["outputs"] else found["id"] not in self.results_acknowledged, found
            assert bool(found["outputs"]) == (found["status"] == "completed"), found

    def check_files(self, daemon, listed, again=False):
        """Each file that is listed is there with the bytes that were sent; those that were read before only `again`."""
        daemon.local.keep = True
        for id, found in listed.items():
            key = (id, bool(found["outputs"]))
            if key in self.whole and not again:
                continue
            inputs = {name: fetch(daemon, id, name) for name in found["inputs"]}
            outputs = {name: fetch(daemon, id, name) for name in found["outputs"]}
            assert inputs == self.sent[found["experimentName"]], found
            assert not outputs or outputs in self.results_sent[id], found
            self.whole.add(key)
        daemon.local.keep = False


def fetch(daemon, id, name):
    """The SHA-256 of a file that is downloaded."""
    reply = daemon.local.get(f"/experiments/{id}/file", path=name)
    assert reply.status == 200, reply
    return hashlib.sha256(reply.body).hexdigest()


class Writers:
    """Threads that submit and bring results until they are told to stop."""

    def __init__(self, daemon, token, ledger, rng):
        self._daemon, self._token, self._ledger, self._rng = daemon, token, ledger, rng
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._again, args=(work,)) for work in (self._submit, self._submit, self._bring)]
        for thread in self._threads:
            thread.start()

    def stop(self):
        self._stop.set()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive()

    def _again(self, work):
        try:
            while not self._stop.is_set():
                work()
                time.sleep(self._rng.random() * 0.04)
        except GONE:
            pass
        except Exception as error:  # a fault of this test: pytest would not see it in a thread
            self._ledger.strange.append(error)

    def _files(self, ending):
        """Some files: most are small, one in ten takes some time to send."""
        sizes = [self._rng.choice((10, 5000, 60_000)) if self._rng.random() < 0.9 else 2_500_000 for _ in range(self._rng.randint(1, 3))]
        return [(f"{number}.{ending}", self._rng.randbytes(size)) for number, size in enumerate(sizes)]

    def _submit(self):
        name, files = str(uuid.UUID(int=self._rng.getrandbits(128))), self._files("nii")
        self._ledger.sent[name] = digests(files)
        reply = self._daemon.submit(self._token, *files, experimentName=name)
        if reply.status == 200:
            self._ledger.acknowledged.add(name)
        else:
            self._ledger.strange.append(reply)

    def _bring(self):
        for item in self._daemon.local.get("/experiments/queue", limit=1).json:
            id, files = item["id"], self._files("out")
            self._ledger.results_sent.setdefault(id, []).append(digests(files))
            reply = self._daemon.local.post(f"/experiments/{id}/results", {}, [("result", *file) for file in files])
            if reply.status == 200 and reply.json is True:
                self._ledger.results_acknowledged.add(id)
            else:
                self._ledger.strange.append(reply)
