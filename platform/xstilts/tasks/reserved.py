"""Rows that are reported somewhere, by a digest of their text: nothing is trained or chosen on them.

A list of digests, so that no file with reported rows is opened while training or choosing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

# The first 12 hex digits of the SHA-256 of each of XQuAD's 240 English paragraphs, white space collapsed
# (Artetxe et al. 2020; google/xtreme, XQuAD.en): all are paragraphs of SQuAD's dev set.
_XQUAD = frozenset(
    """
01606aac86b0 02473abeaeaf 0392a2097b98 046e69fc2e38 082c3acd69de 083e9d9d0cfb 09bd619296bf 0b3bdd5c16d6
0bed9863eb09 0cc7e2c8f48d 0db6c18a581b 0db918cf93dd 0fe05bd18330 10e098c47481 1576211719dc 18adb5395610
19620cc84022 19c3beacb99e 1a3bfa6d8c28 1a671b4180a1 1c7faebb317f 1d22fe737684 1d4b2491c909 1d7b64cc0b22
1dd13bf14660 1e5e6f12f794 1f0fc4793c09 215da96f975d 22a8092c42fa 249e7dd9097c 24e6c613dad8 252c049b7497
26823ec8bf50 26b6d4ddb4d6 26e9c23786fc 299ff1ed613c 2b614d2ff3c9 2c447bf3a7af 2cd5effea682 2f7eea6e6a72
308b0c61830d 3344ef93052b 33fc6535b983 3526ee48cec6 36480f9ea6f7 370a061e5ca6 37b7c4ca4ba5 3895e66f384d
39a8970b5381 3a2ba0c48656 3a3878b3435f 3bc57095aeac 3d913b06d94a 415f6ece6468 4256a08b1b95 45d09dcbde15
46578ca9db66 482cc8356a93 490cc3b7495d 492c00fb2c1b 4a3b763d4e62 4bec549ca300 4d3f905eee79 4de7e2328cd6
513cf1b85eb2 5231e274b48c 549c3422020d 54dc2ba07816 5723097f5c1a 5944ed72046a 5b469d64ced1 5e9573dfeb2a
5ee9e17954c8 5ef3de079d69 5f56ce2be663 5f5d1d6c2496 613ea613b647 6180a0539e63 61af1803b073 62130be8ca9b
6218825e8a89 6288ef858c50 62ea7e436925 63be2650416e 65fcd048594e 660e16581b99 66f13e75fb57 670c1660953a
67afc3f9c171 683b342d0ffc 68cd564f9e51 697a7cf1275f 698730d8005e 6ceedf167e6d 6fc646facb48 714fee269da5
7164a06bbe7a 7164ec3ee8b4 7192dfa7aac6 73568a1daf7b 73c9e930c6dd 742f9a655ee8 752ba585d39a 759908655a10
75ac617b40cb 773a455641da 781a0469e96a 782a3cf2d011 79b5634b59b9 7a964e744589 7b34e1e2f91d 7c68f0f76473
7cc34b2ba0d4 7dbbd86ec515 7e56efa7fa5e 7f5c1af34a11 804a1a2d7b5d 808648d31e3c 81322c2f7ad6 829e809f79e6
8390cff73f62 83c6ede3febb 8476df131f9a 848249ede437 85d08321bb6f 85d84a95e51e 862c16275df1 8635441a30aa
8680c2d15110 86c9f787d0f3 87c3a5e21ea4 8858021b6f7c 88d1e5596470 891950705a40 89494d97715f 8b14af3080fc
8bef31da0b2c 8c3b7f94a92a 8cd0f21119a0 8e240428cc00 8eda53faed80 8f276d70be8d 8fa889bc2f4f 8ffda8441c55
9124277b2b67 92cbfe0adf7c 93fbba530b12 973bba514a77 99e73b32788b 9fdc7357ead1 a04348495e1d a13fb4c35855
a314db2abd80 a326fea0a34b a5fca4c3e39d a603a74eeb0f a61c54689128 a7d16a5dd40a aa1a9a4a968d ac150f16fc34
ac807a49b5fe afa714a72ebd b0008033f8b9 b1d48329392c b2f898736ced b33181c02624 b36ace5551f6 b3e0e537ca34
b483ecccba6a b4ba2bbeeee2 b53b1369c571 b67161cb7076 b6b3b4a40d23 b85f605125c8 ba71a4259a62 bb06356b5b40
bc680335bd36 bcbfda51f180 bd0515eb648a bd46991baa9a bf6091255163 bfad7e54a664 bfc15b62d8c2 c018c8eb3d42
c13e97d5b9e1 c2d62502892e c3575becd21d c426efe13590 c49d89872cec c4fd59d733b1 c65899f588f2 c6c943ad8d93
c7c7ec362f04 c7d6c8e588d5 ca7fe1e189bb cc731d551491 ccfb450b288c cf83b4012ada d0c3193100a2 d13f4c8801b2
d23507599fde d269a25086da d3384a30ecac d3966af096c5 d3bd27c0e7c7 d65ecd072e71 d66dc811eec7 d8f7752a6c52
d96efa04967d d9913b5e5e77 db91f2599d75 dbfbff5b6105 dc779a477e76 df806129cf00 dff1a5d8b908 dffeda957a84
e24121ee21d6 e554472c5bbb e70fc06ba9ab e72c427b3320 e7faaf2c519b e80ce1ef7c64 e9b551e811c9 ea82c9d7a805
eae43b060a9c ec21379d9dab edee229cee4c ee73f593c26a ef9a1a524024 efc669561aaa f106d53b0c12 f2d524368ca6
f34f6289c005 f5844a8881e6 f590868c5774 f65b183e8d26 f6d8387f602d fb7cece550ee fc82521fd139 ff55d7c6237f
""".split()
)


def _xquad(row: Mapping[str, Any]) -> bool:
    return digest(row["context"]) in _XQUAD


LISTS: dict[str, Callable[[Mapping[str, Any]], bool]] = {"xquad": _xquad}
"""Name, as in `Rows.without` -> whether a row is reserved."""


def digest(text: str) -> str:
    """What a text is known by in these lists."""
    return hashlib.sha256(" ".join(text.split()).encode()).hexdigest()[:12]
