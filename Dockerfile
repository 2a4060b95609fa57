# Tilescribe for an NPU: Debian 13 with its own XRT (backports), mlir-aie and Peano. The host needs Linux 6.18 or later
# with amdxdna and the NPU's firmware, and nothing else.
#
#     docker build -t tilescribe .
#     docker run --rm -p 127.0.0.1:8000:8000 -e TILESCRIBE_API_KEY=a-key -v tilescribe:/var/cache/tilescribe tilescribe
#
# serves the OpenAI audio API and a page at http://127.0.0.1:8000 (docs/serve.md), on the emulator. The NPU's flags are
#
#     --device /dev/accel/accel0 --group-add "$(stat -c %g /dev/accel/accel0)" --cap-add IPC_LOCK --ulimit memlock=-1
#
# With them and `-it -v "$PWD:/recordings" tilescribe bash`: `tilescribe doctor`, which names each of these four where it
# is lacking; `scripts/build_xclbin`, once, which takes minutes; `transcribe --device npu /recordings/talk.mp3`.
FROM debian:13

# PyTorch is Debian's, built for the CPU alone.
RUN sed -i 's/^Suites: trixie trixie-updates$/& trixie-backports/' /etc/apt/sources.list.d/debian.sources \
    && apt-get update \
    && apt-get install --yes --no-install-recommends --target-release trixie-backports \
        python3-xrt libxrt-npu2 libxrt-utils-npu \
    && apt-get install --yes --no-install-recommends ca-certificates g++ make python3-torch python3-venv \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/tilescribe
COPY . .
# Debian's PyTorch wants its own versions of some packages.
RUN python3 -m venv --system-site-packages /opt/venv \
    && grep -Ev '^(torch|sympy|networkx|mpmath)==' constraints.txt > /tmp/constraints.txt \
    && /opt/venv/bin/pip install --no-cache-dir --constraint /tmp/constraints.txt --editable '.[serve]'

# From their projects' pages; Peano's `nightly` keeps a build for a time; later it is under a tag with dates.
ARG MLIR_AIE=1.4.2
ARG LLVM_AIE=21.0.0.2026080301+c9c5ecb7
RUN /opt/venv/bin/pip install --no-cache-dir "mlir_aie==$MLIR_AIE" "llvm-aie==$LLVM_AIE" \
        -f "https://github.com/Xilinx/mlir-aie/releases/expanded_assets/v$MLIR_AIE" \
        -f https://github.com/Xilinx/llvm-aie/releases/expanded_assets/nightly

# XRT heeds no xrt.ini of root's, and files that a user makes should not be root's.
RUN useradd --create-home tilescribe && install --directory --owner tilescribe /var/cache/tilescribe
USER tilescribe
ENV PATH=/opt/venv/bin:$PATH TILESCRIBE_CACHE=/var/cache/tilescribe TILESCRIBE_KERNELS=/var/cache/tilescribe/kernels \
    NUMBA_CACHE_DIR=/var/cache/tilescribe/compiled
VOLUME /var/cache/tilescribe
EXPOSE 8000
HEALTHCHECK --start-period=5m CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/health')"]
CMD ["tilescribe", "serve", "--host", "0.0.0.0", "--port", "8000"]
