"""The files that are served. All are generated, once, below the work directory."""

import ctypes
import mmap
import os
import random
import shutil
import subprocess

MIB = 1 << 20
START_VIDEOS = 1000


class Fixtures:
    """`library` holds what the servers serve; `many` a library of a thousand small videos."""

    def __init__(self, work, hot_bytes, cold_bytes, say):
        self.work, self.say = work, say
        self.library = os.path.join(work, "library")
        self.many = os.path.join(work, "many")
        self.hot_bytes, self.cold_bytes = hot_bytes, cold_bytes
        os.makedirs(self.library, exist_ok=True)
        os.makedirs(self.many, exist_ok=True)

    def path(self, name):
        return os.path.join(self.library, name)

    def hot(self):
        """Random bytes, locked into the page cache for as long as this program runs: a kernel that reclaims ahead of
        need (DAMON) would otherwise make parts of it cold. Without the permission to lock, it is read once."""
        self._random("hot.bin", self.hot_bytes)
        with open(self.path("hot.bin"), "rb", buffering=0) as file:
            while file.read(8 * MIB):
                pass
            libc = ctypes.CDLL(None, use_errno=True)
            libc.mmap.restype = ctypes.c_void_p
            size = ctypes.c_size_t(self.hot_bytes)
            address = libc.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, file.fileno(), ctypes.c_long(0))
        if address == ctypes.c_void_p(-1).value or libc.mlock(ctypes.c_void_p(address), size) != 0:
            self.say("hot.bin cannot be locked in memory (RLIMIT_MEMLOCK)")

    def cold(self):
        self._random("cold.bin", self.cold_bytes)

    def day(self):
        """A day of 60 frames per second: 5,184,000 samples, a moov box of 21 MB in front."""
        if os.path.exists(self.path("day.mp4")):
            return
        self.say("make day.mp4")
        minute = self._minute()
        part = os.path.join(self.work, "day.part.mp4")
        self._ffmpeg("-stream_loop", "1439", "-i", minute, "-c", "copy", "-movflags", "+faststart", part)
        os.rename(part, self.path("day.mp4"))

    def thousand(self):
        if os.path.exists(os.path.join(self.many, f"v{START_VIDEOS - 1:04}.mp4")):
            return
        self.say(f"make {START_VIDEOS} small videos")
        minute = self._minute()
        for n in range(START_VIDEOS):
            shutil.copyfile(minute, os.path.join(self.many, f"v{n:04}.mp4"))

    def camera(self, period, keyframe_every=100_000):
        """40 s of 4 Mb/s and 25 frames per second, a fragment per `period` seconds; as a rule with one keyframe, so that
        all viewers join at the same place."""
        path = os.path.join(self.work, f"camera-{round(period * 1000)}ms-{keyframe_every}.mp4")
        if not os.path.exists(path):
            part = path.replace(".mp4", ".part.mp4")
            self._ffmpeg("-f", "lavfi", "-i", "testsrc2=s=640x360:r=25:d=40", "-pix_fmt", "yuv420p", "-c:v", "libx264",
                         "-preset", "ultrafast", "-tune", "zerolatency", "-g", str(keyframe_every),
                         "-keyint_min", str(keyframe_every), "-sc_threshold", "0", "-b:v", "4M", "-minrate", "4M",
                         "-maxrate", "4M", "-bufsize", "1M",
                         "-x264-params", "nal-hrd=cbr:force-cfr=1", "-movflags", "+empty_moov+default_base_moof",
                         "-frag_duration", str(round(period * 1_000_000)), part)
            os.rename(part, path)
        return path

    def segments(self, seconds):
        """The same as files of some seconds each, in the library; a file with their URLs for nginx."""
        whole = self.camera(0.04)
        with open(whole, "rb") as file:
            data = file.read()
        size = len(data) * seconds // 40
        count = len(data) // size
        for n in range(count):
            path = self.path(f"segment{n}.m4s")
            if not os.path.exists(path):
                with open(path, "wb") as file:
                    file.write(data[n * size:(n + 1) * size])
        urls = os.path.join(self.work, "segments.urls")
        with open(urls, "w", encoding="utf-8") as file:
            file.writelines(f"/segment{n}.m4s\n" for n in range(count))
        return urls

    def moving(self, path, frames):
        """A 1280x720 H.264 video with a picture that changes, a keyframe every 60 frames."""
        if not os.path.exists(path):
            part = path.replace(".mp4", ".part.mp4")
            self._ffmpeg("-f", "lavfi", "-i", "testsrc2=s=1280x720:r=30", "-frames:v", str(frames), "-pix_fmt", "yuv420p",
                         "-c:v", "libx264", "-preset", "fast", "-b:v", "4M", "-g", "60", "-bf", "2", part)
            os.rename(part, path)

    @staticmethod
    def seek_times(count=600, seconds=86_000):
        """Moments of the day, in seconds; always the same ones."""
        times = random.Random(7)
        return [times.randrange(seconds * 1000) / 1000 for _ in range(count)]

    def seek_urls(self, name, template, times):
        """A file with one URL per line."""
        path = os.path.join(self.work, f"{name}.urls")
        with open(path, "w", encoding="utf-8") as file:
            for start in times:
                file.write(template.format(start=f"{start:.3f}", end=f"{start + 1:.3f}") + "\n")
        return path

    def _minute(self):
        path = os.path.join(self.work, "minute.mp4")
        if not os.path.exists(path):
            source = ["-f", "lavfi", "-i", "color=gray:s=16x16:r=60:d=60", "-pix_fmt", "yuv420p"]
            self._ffmpeg(*source, "-c:v", "libx264", "-preset", "veryfast", "-g", "60", "-bf", "0", path)
        return path

    @staticmethod
    def _ffmpeg(*arguments):
        subprocess.run(["ffmpeg", "-v", "error", "-y", *arguments], check=True, timeout=300)

    def _random(self, name, size):
        path = self.path(name)
        if os.path.exists(path) and os.path.getsize(path) == size:
            return
        self.say(f"make {name}, {size / 1e9:.1f} GB")
        block = os.urandom(16 * MIB)
        with open(path, "wb", buffering=0) as file:
            left, turn = size, 0
            while left > 0:
                shift = 1 + turn * 4099 % (len(block) - 1)
                piece = (block[shift:] + block[:shift])[:left]
                file.write(piece)
                left -= len(piece)
                turn += 1
            os.fsync(file.fileno())
