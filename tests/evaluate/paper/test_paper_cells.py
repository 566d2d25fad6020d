"""Every figure of the paper's tables, typed a second time: by set and figure, as a line over the methods."""

import pytest

from authface.evaluate.paper.paper import paper_table

PRINTED = """
1 | CelebA-Test | PSNR | 24.65 24.68 25.15 21.43 26.19 25.00 25.57
1 | CelebA-Test | SSIM | 0.6669 0.6322 0.6647 0.5943 0.6829 0.6487 0.6768
1 | CelebA-Test | LPIPS | 0.2308 0.2943 0.2269 0.3443 0.2272 0.2716 0.2143
1 | CelebA-Test | MANIQA | 0.5633 0.5103 0.5546 0.5397 0.5964 0.5233 0.6624
1 | CelebA-Test | MUSIQ | 73.91 73.32 75.56 70.42 71.90 72.92 75.76
1 | CelebA-Test | FID | 42.62 47.59 52.43 56.59 40.74 35.01 50.93
1 | CelebA-Test | CLIPIQA | 0.6790 0.6310 0.6716 0.5770 0.6863 0.6103 0.7065
1 | LFW-Test | MANIQA | 0.5514 0.5176 0.5415 0.5326 0.5528 0.4768 0.6431
1 | LFW-Test | MUSIQ | 73.58 73.60 75.49 71.04 69.86 69.90 75.87
1 | LFW-Test | FID | 49.96 51.89 52.36 47.14 49.92 41.98 45.29
1 | LFW-Test | CLIPIQA | 0.6994 0.6471 0.6893 0.6069 0.6969 0.5931 0.7350
1 | WebPhoto-Test | MANIQA | 0.5351 0.4793 0.5241 0.4843 0.4721 0.4394 0.5860
1 | WebPhoto-Test | MUSIQ | 72.13 71.67 74.01 67.19 61.78 65.67 74.11
1 | WebPhoto-Test | FID | 87.35 88.45 83.19 107.86 84.29 73.44 90.04
1 | WebPhoto-Test | CLIPIQA | 0.6888 0.6366 0.6922 0.5690 0.6308 0.5767 0.6964
1 | WIDER-Test | MANIQA | 0.5289 0.4925 0.5119 0.4989 0.4923 0.4522 0.5941
1 | WIDER-Test | MUSIQ | 72.80 71.50 73.40 67.18 61.87 67.19 74.59
1 | WIDER-Test | FID | 39.49 49.84 38.78 45.27 55.22 42.61 36.10
1 | WIDER-Test | CLIPIQA | 0.7101 0.6482 0.6990 0.5943 0.6789 0.6093 0.7306
2 | CelebA-Test | PSNR | 24.39 25.59 23.95 25.57
2 | CelebA-Test | MANIQA | 0.5781 0.5057 0.6449 0.6624
2 | CelebA-Test | MUSIQ | 69.25 74.42 73.66 75.76
2 | CelebA-Test | CLIPIQA | 0.6465 0.7088 0.6821 0.7065
2 | WebPhoto-Test | MANIQA | 0.5252 0.5810 0.5767 0.5860
2 | WebPhoto-Test | MUSIQ | 67.01 72.35 68.52 74.11
2 | WebPhoto-Test | CLIPIQA | 0.6276 0.6833 0.6861 0.6964
4 | CelebA-Test | PSNR | 25.57 25.40 25.37 25.42
4 | CelebA-Test | MANIQA | 0.6624 0.6399 0.6462 0.6440
4 | CelebA-Test | MUSIQ | 75.76 74.92 74.67 74.72
4 | CelebA-Test | CLIPIQA | 0.7065 0.6786 0.6882 0.6794
4 | WebPhoto-Test | MANIQA | 0.5860 0.5760 0.5829 0.5756
4 | WebPhoto-Test | MUSIQ | 74.11 73.51 73.40 73.06
4 | WebPhoto-Test | CLIPIQA | 0.6964 0.6657 0.6755 0.6686
3 |  | FID | 95.13 62.90 51.09
3 |  | HPSv2 | 0.2637 0.2712 0.2903
3 |  | mean rank | 2.53 2.17 1.33
5 |  | others | 26.75 7.50 23.50 10.50 25.25 22.50
5 |  | same | 2.50 0.75 1.25 0.50 2.00 1.00
5 |  | ours | 70.75 91.75 75.25 89.00 72.75 76.50
6 |  | seconds | 0.06 0.17 0.01 0.49 2.89 10.36 5.25
"""
METHODS = {
    1: ["GFP-GAN", "PSFRGAN", "CodeFormer", "DR2", "BFRffusion", "SUPIR", "AuthFace"],
    2: ["SDXL prior", "face prior", "face prior, constant facial loss", "face prior, time-aware facial loss"],
    3: ["SDXL", "semantic tags", "semantic and photographic tags"],
    4: ["m = -0.5, s = 1", "m = 0, s = 1", "m = 0.5, s = 1", "m = -0.5, s = 0.5"],
    5: ["GFP-GAN", "PSFRGAN", "CodeFormer", "DR2", "BFRffusion", "SUPIR"],
    6: ["PSFRGAN", "GFP-GAN", "CodeFormer", "DR2", "BFRffusion", "SUPIR", "AuthFace"],
}


def printed(number: int) -> dict[tuple[str, str, str], float]:
    """Set, method and figure -> what the paper prints."""
    found = {}
    for line in PRINTED.strip().splitlines():
        table, on, figure, values = (part.strip() for part in line.split("|"))
        if int(table) == number:
            for method, value in zip(METHODS[number], values.split(), strict=True):
                found[on, method, figure] = float(value)
    return found


@pytest.mark.parametrize("number", METHODS)
def test_every_cell_is_as_printed(number: int) -> None:
    table = paper_table(number)
    held = {(row.set, row.label, name): value.value for row in table.rows for name, value in row.values.items()}
    assert held == printed(number)
    sets = dict.fromkeys(row.set for row in table.rows)
    assert [(row.set, row.label) for row in table.rows] == [(on, label) for on in sets for label in METHODS[number]]


def test_no_cell_is_missing() -> None:
    assert sum(len(printed(number)) for number in METHODS) == 223
