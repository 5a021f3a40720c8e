#!/usr/bin/env bash
# Fetches the trained networks that the tests use and that do not stand in the repository, from the PyPI packages that
# ship them:
#   fetch_models.sh DIR
# PP-OCRv4 text detection and recognition, PP-OCR text direction (Apache-2.0, rapidocr-onnxruntime), Silero voice
# activity (MIT, silero-vad). Skips what is there. Needs python3 with pip.
set -euo pipefail
dir=${1:?usage: fetch_models.sh DIR}
mkdir -p "$dir"
[ -e "$dir/complete" ] && exit 0
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
python3 -m pip download --quiet --no-deps --dest "$tmp" rapidocr-onnxruntime==1.4.4 silero-vad==6.2.3
python3 - "$dir" "$tmp"/*.whl <<'PY'
import os, sys, zipfile
wanted = {"ch_PP-OCRv4_det_infer.onnx", "ch_PP-OCRv4_rec_infer.onnx", "ch_ppocr_mobile_v2.0_cls_infer.onnx",
          "silero_vad_openvino_16k.onnx", "silero_vad_16k_op15.onnx"}
for wheel in sys.argv[2:]:
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.namelist():
            name = os.path.basename(member)
            if name in wanted:
                with open(os.path.join(sys.argv[1], name), "wb") as file:
                    file.write(archive.read(member))
                wanted.discard(name)
sys.exit(f"not in the packages: {sorted(wanted)}" if wanted else 0)
PY
touch "$dir/complete"
