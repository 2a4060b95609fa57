"""Language tags as files and users write them (`en-US`, `zh_CN.UTF-8`, `ger`, `nb`), as Whisper's codes."""

from __future__ import annotations

__all__ = ["language_tag"]

# Whisper's code, then what else stands for that language: ISO 639-2 and 639-3, and tags that were replaced.
_CODES = """
af afr, am amh, ar ara arb, as asm, az aze, ba bak, be bel, bg bul, bn ben, bo bod tib, br bre, bs bos, ca
cat, cs ces cze, cy cym wel, da dan, de deu ger, el ell gre, en eng, es spa, et est, eu eus baq, fa fas per
prs, fi fin, fo fao, fr fra fre, gl glg, gu guj, ha hau, haw, he heb iw, hi hin, hr hrv, ht hat, hu hun, hy
hye arm, id ind in, is isl ice, it ita, ja jpn, jw jav jv, ka kat geo, kk kaz, km khm, kn kan, ko kor, la lat,
lb ltz, ln lin, lo lao, lt lit, lv lav, mg mlg, mi mri mao, mk mkd mac, ml mal, mn mon, mr mar, ms msa may
zsm, mt mlt, my mya bur, ne nep, nl nld dut, nn nno, no nor nb nob, oc oci, pa pan, pl pol, ps pus, pt por, ro
ron rum mo, ru rus, sa san, sd snd, si sin, sk slk slo, sl slv, sn sna, so som, sq sqi alb, sr srp, su sun, sv
swe, sw swa swh, ta tam, te tel, tg tgk, th tha, tk tuk, tl tgl fil, tr tur, tt tat, uk ukr, ur urd, uz uzb,
vi vie, yi yid ji, yo yor, yue, zh zho chi cmn
"""
_BY_TAG = {tag: entry.split()[0] for entry in _CODES.split(",") for tag in entry.split()}


def language_tag(tag: str) -> str:
    """Whisper's code for a tag's language, without region and script; what is no such tag in lower case, as it is."""
    name = tag.strip().lower()
    first, *rest = name.replace("_", "-").split("-")
    return "yue" if first == "zh" and "yue" in rest else _BY_TAG.get(first, name)
