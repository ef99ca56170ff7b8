"""The styles as data: camera, light, weather and materials of each domain."""

from __future__ import annotations

from dataclasses import dataclass

from hf_lwmm.demo.streets.canvas import Colour

Range = tuple[float, float]


@dataclass(frozen=True)
class Look:
    """A style. Values are drawn from ranges once a scene and from palettes once an object.

    Lengths are in metres, colours from 0 to 255.
    """

    eye: Range  # camera above the road
    focal: Range  # fraction of the image's width
    horizon: Range  # fraction of the image's height
    sun: Range  # 0 = overcast, 1 = clear
    sight: Range  # metres after which haze covers colours
    facing: Range  # light on walls, as a fraction of full light
    skies: tuple[tuple[Colour, Colour], ...]  # zenith, horizon
    cloud: Colour
    clouds: float
    asphalt: tuple[Colour, ...]
    paving: tuple[Colour, ...]
    marking: tuple[Colour, ...]
    walls: tuple[Colour, ...]
    leaves: tuple[Colour, ...]
    cars: tuple[Colour, ...]
    metal: tuple[Colour, ...]
    fences: tuple[Colour, ...]
    plates: tuple[tuple[Colour, Colour], ...]  # border and face of signs
    heights: Range  # of buildings
    rough: float  # texture of road and pavement
    verge: float  # probability of grass beyond the pavement
    pitched: float  # probability that the roof of a low building shows
    planted: float  # probability of trees along the kerb
    crowd: float  # mean number of people in a scene
    bare: float = 0.0  # probability of winter, with bare trees
    dusk: float = 0.0  # probability of a dark street under a bright sky
    lit: float = 0.0  # fraction of lit windows
    night: bool = False
    warmth: Range = (1.0, 1.0)  # red over blue of the light
    exposure: Range = (1.0, 1.0)
    saturation: Range = (1.0, 1.0)
    contrast: Range = (0.0, 0.0)  # 0 = linear, 1 = deep shadows and blown-out lights
    blur: Range = (0.0, 0.0)  # pixels at 320 wide
    noise: Range = (0.0, 0.0)


_PLATES: tuple[tuple[Colour, Colour], ...] = (
    ((200, 30, 34), (238, 238, 232)), ((240, 240, 238), (30, 80, 170)), ((30, 80, 170), (30, 84, 176)),
    ((200, 30, 34), (190, 28, 32)), ((20, 20, 20), (240, 200, 40)), ((238, 238, 232), (24, 110, 70)),
)  # fmt: skip

LOOKS: dict[str, Look] = {
    "gta": Look(
        eye=(1.3, 1.9),
        focal=(0.75, 1.15),
        horizon=(0.4, 0.55),
        sun=(0.0, 1.0),
        sight=(90, 300),
        facing=(0.45, 1.0),
        skies=(
            ((104, 146, 200), (206, 220, 230)),
            ((150, 184, 226), (240, 246, 250)),
            ((196, 214, 236), (250, 252, 252)),
            ((240, 244, 248), (255, 255, 255)),
            ((150, 160, 172), (214, 216, 216)),
            ((112, 122, 132), (190, 196, 200)),
            ((140, 150, 180), (236, 208, 176)),
        ),
        cloud=(238, 238, 238),
        clouds=0.5,
        asphalt=((98, 98, 100), (84, 84, 88), (116, 112, 106), (104, 98, 98), (72, 74, 78)),
        paving=((150, 144, 136), (128, 124, 122), (166, 154, 138), (112, 108, 104), (140, 118, 108)),
        marking=((214, 212, 204), (232, 232, 228), (190, 190, 186), (240, 240, 240), (214, 180, 90)),
        walls=(
            (158, 104, 80),
            (190, 172, 146),
            (150, 146, 140),
            (128, 90, 72),
            (206, 196, 176),
            (112, 116, 122),
            (178, 150, 120),
            (224, 220, 208),
            (96, 84, 72),
            (184, 164, 120),
        ),
        leaves=((74, 96, 48), (60, 84, 44), (96, 108, 56), (84, 92, 40), (52, 60, 40), (98, 96, 62)),
        cars=(
            (30, 32, 36),
            (190, 192, 194),
            (110, 114, 120),
            (140, 30, 30),
            (40, 60, 110),
            (225, 225, 222),
            (70, 84, 74),
            (150, 130, 100),
        ),
        metal=((84, 88, 88), (120, 122, 122), (60, 66, 62), (130, 110, 90)),
        fences=((70, 74, 72), (150, 130, 104), (110, 112, 116), (196, 192, 182)),
        plates=_PLATES,
        heights=(4, 17),
        rough=5.0,
        verge=0.3,
        pitched=0.6,
        bare=0.6,
        dusk=0.2,
        contrast=(0.2, 1.0),
        planted=0.45,
        crowd=5.0,
        warmth=(0.8, 1.1),
        exposure=(0.75, 1.3),
        saturation=(0.35, 1.0),
        blur=(0.3, 0.8),
        noise=(1.0, 5.0),
    ),
    "synthia": Look(
        eye=(1.9, 3.0),
        focal=(0.65, 0.95),
        horizon=(0.28, 0.42),
        sun=(0.5, 1.0),
        sight=(300, 900),
        facing=(0.9, 1.05),
        skies=(((70, 140, 226), (176, 212, 240)), ((110, 168, 232), (214, 232, 244))),
        cloud=(250, 250, 252),
        clouds=0.9,
        asphalt=((116, 118, 126), (104, 104, 112), (128, 126, 124)),
        paving=((190, 176, 158), (178, 150, 134), (176, 178, 182)),
        marking=((246, 246, 246),),
        walls=((226, 206, 160), (222, 160, 120), (200, 206, 214), (236, 232, 222), (176, 196, 206), (232, 190, 150)),
        leaves=((70, 140, 46), (96, 160, 60), (52, 118, 50)),
        cars=((214, 40, 34), (30, 80, 190), (240, 240, 240), (244, 190, 30), (40, 44, 50), (60, 150, 90)),
        metal=((150, 154, 160), (96, 100, 106)),
        fences=((170, 174, 178), (120, 140, 120), (200, 170, 130)),
        plates=_PLATES,
        heights=(8, 26),
        rough=2.0,
        verge=0.2,
        pitched=0.3,
        contrast=(0.2, 0.5),
        planted=0.6,
        crowd=4.5,
        warmth=(0.96, 1.06),
        exposure=(0.9, 1.1),
        saturation=(1.05, 1.4),
    ),
    "night": Look(
        eye=(1.2, 1.7),
        focal=(0.75, 1.1),
        horizon=(0.36, 0.5),
        sun=(0.0, 0.0),
        sight=(60, 160),
        facing=(0.9, 1.0),
        skies=(((52, 58, 76), (96, 96, 104)), ((44, 46, 62), (110, 98, 90))),
        cloud=(80, 80, 88),
        clouds=0.5,
        asphalt=((84, 86, 90), (74, 76, 82)),
        paving=((132, 130, 128), (120, 116, 112)),
        marking=((206, 206, 200),),
        walls=((150, 106, 84), (186, 170, 146), (148, 146, 144), (122, 92, 78), (112, 116, 122), (196, 186, 168)),
        leaves=((62, 82, 46), (54, 72, 42), (80, 88, 50)),
        cars=((30, 32, 36), (180, 182, 184), (104, 108, 114), (120, 30, 30), (40, 56, 100), (210, 210, 208)),
        metal=((84, 88, 88), (112, 114, 116)),
        fences=((76, 80, 78), (130, 116, 98), (106, 108, 112)),
        plates=_PLATES,
        heights=(6, 20),
        rough=4.0,
        verge=0.25,
        pitched=0.5,
        bare=0.3,
        contrast=(0.0, 0.4),
        planted=0.45,
        crowd=3.0,
        lit=0.3,
        night=True,
        warmth=(0.8, 1.1),
        exposure=(0.8, 1.15),
        saturation=(0.6, 0.9),
        blur=(0.5, 1.0),
        noise=(4.0, 9.0),
    ),
    "evening": Look(
        eye=(1.3, 2.2),
        focal=(0.7, 1.05),
        horizon=(0.36, 0.52),
        sun=(0.0, 0.0),
        sight=(80, 220),
        facing=(0.8, 1.0),
        skies=(((70, 84, 132), (206, 150, 120)), ((84, 98, 140), (176, 168, 176)), ((110, 104, 128), (226, 176, 130))),
        cloud=(132, 120, 132),
        clouds=0.6,
        asphalt=((104, 102, 106), (90, 92, 98), (120, 114, 110)),
        paving=((158, 152, 146), (140, 130, 126), (150, 146, 150)),
        marking=((224, 222, 214),),
        walls=((186, 160, 128), (160, 112, 90), (206, 198, 184), (140, 138, 142), (172, 140, 120), (120, 104, 96)),
        leaves=((76, 92, 50), (92, 98, 52), (66, 80, 46)),
        cars=((36, 38, 44), (200, 200, 202), (120, 124, 130), (150, 36, 34), (44, 64, 120), (86, 96, 84)),
        metal=((92, 96, 98), (120, 120, 122)),
        fences=((88, 90, 88), (146, 128, 108), (120, 122, 126)),
        plates=_PLATES,
        heights=(5, 20),
        rough=4.0,
        verge=0.25,
        pitched=0.5,
        bare=0.3,
        contrast=(0.0, 0.6),
        planted=0.5,
        crowd=4.0,
        lit=0.4,
        night=True,
        warmth=(0.85, 1.2),
        exposure=(1.3, 1.8),
        saturation=(0.6, 1.1),
        blur=(0.3, 0.8),
        noise=(2.0, 6.0),
    ),
    "fog": Look(
        eye=(1.3, 2.4),
        focal=(0.7, 1.1),
        horizon=(0.36, 0.52),
        sun=(0.0, 0.1),
        sight=(25, 80),
        facing=(0.85, 1.0),
        skies=(
            ((196, 200, 204), (216, 218, 218)),
            ((176, 182, 188), (204, 206, 208)),
            ((150, 156, 166), (186, 190, 194)),
        ),
        cloud=(214, 214, 214),
        clouds=0.2,
        asphalt=((96, 98, 102), (84, 86, 90), (110, 108, 108)),
        paving=((150, 146, 142), (134, 132, 130), (162, 154, 146)),
        marking=((214, 214, 210),),
        walls=((170, 130, 104), (196, 184, 162), (154, 152, 150), (134, 110, 96), (212, 206, 194), (122, 128, 134)),
        leaves=((84, 94, 62), (72, 84, 56), (98, 98, 70)),
        cars=((40, 42, 48), (196, 198, 200), (120, 124, 128), (146, 40, 40), (52, 70, 116), (222, 222, 220)),
        metal=((92, 96, 96), (124, 126, 126)),
        fences=((86, 90, 90), (148, 132, 112), (120, 122, 126)),
        plates=_PLATES,
        heights=(5, 20),
        rough=4.0,
        verge=0.3,
        pitched=0.5,
        bare=0.7,
        contrast=(0.0, 0.3),
        planted=0.5,
        crowd=4.0,
        warmth=(0.9, 1.0),
        exposure=(0.8, 1.1),
        saturation=(0.4, 0.8),
        blur=(0.3, 0.9),
        noise=(1.0, 4.0),
    ),
}
