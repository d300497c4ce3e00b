"""One worker as a process: started, asked, watched, stopped."""

import json
import os
import pathlib
import select
import subprocess
import threading
import time


class Failed(Exception):
    """A worker's reason for giving no figure, fit for the table."""


class Worker:
    def __init__(self, command, threads, log, limit):
        self.log, self.limit = log, limit
        # OPENBLAS_* may hold a debugging choice of kernels; no side is to be timed under one.
        env = {k: v for k, v in os.environ.items() if not k.startswith("OPENBLAS_")}
        env["OMP_NUM_THREADS"] = str(threads)
        with open(log, "w") as errors:
            try:
                self.process = subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, env=env
                )
            except OSError as error:
                raise Failed(f"cannot start: {error.strerror}") from None

    def go(self):
        line = ""
        try:
            self.process.stdin.write("go\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # what it said before it ended stands in its output
        if not select.select([self.process.stdout], [], [], self.limit)[0]:
            raise Failed(f"no answer in {self.limit} s")
        line = self.process.stdout.readline()
        if not line:
            raise Failed(self.last_words())
        answer = json.loads(line)
        if "failed" in answer:
            raise Failed(answer["failed"])
        return answer

    def last_words(self):
        status = self.process.wait()
        said = [line.strip() for line in pathlib.Path(self.log).read_text().splitlines() if line.strip()]
        return f"ended with status {status}" + (f": {said[-1][:160]}" if said else "")

    def status_bytes(self, key):
        for line in pathlib.Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith(key + ":"):
                return int(line.split()[1]) * 1024
        raise Failed("ended")

    def peak_anonymous(self):
        """Peak memory that holds data, mapped files left out, sampled in one untimed repetition."""
        peak, done = 0, threading.Event()

        def sample():
            nonlocal peak
            while not done.is_set():
                try:
                    peak = max(peak, self.status_bytes("RssAnon"))
                except (OSError, Failed):
                    return
                time.sleep(0.002)

        sampler = threading.Thread(target=sample)
        sampler.start()
        try:
            self.go()
        finally:
            done.set()
            sampler.join()
        return peak

    def stop(self):
        self.process.kill()
        self.process.wait()
