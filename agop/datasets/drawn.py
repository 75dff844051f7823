"""Drawn faces with and without glasses: a picture problem whose answer is known.

A scene is a table of numbers, some of the person and some of the picture. Shapes are
soft masks for many pictures at once, painted one over the other.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
from sklearn.utils import check_random_state

# A picture reaches from −1 to 1, rightwards and downwards; tones go from 0, black, to
# 1, white. Everything is drawn uniformly from its range; what is present or absent is
# present above 0.

#: What stays the same in all pictures of a person.
_PERSON = {
    "head_width": (0.44, 0.53),
    "head_height": (0.60, 0.68),
    "skin": (0.35, 0.8),
    "hair": (0.1, 0.75),
    "hair_length": (-0.5, 0.5),
    "hair_volume": (0.03, 0.13),
    "hairline": (-0.50, -0.34),
    "eye_distance": (0.20, 0.23),
    "eye_width": (0.07, 0.095),
    "brow_height": (0.02, 0.045),
    "brow_darkness": (0.3, 0.9),
    "beard": (-0.9, 0.9),
    "nose_height": (0.12, 0.2),
    "mouth_width": (0.13, 0.22),
}

#: What differs from picture to picture.
_PICTURE = {
    "right": (-0.06, 0.06),
    "down": (-0.06, 0.06),
    "wall": (0.1, 0.9),
    "furniture": (0.1, 0.9),
    "furniture_right": (-1.0, 1.0),
    "clothes": (0.05, 0.95),
    "light_right": (-0.3, 0.3),
    "light_down": (-0.25, 0.25),
    "exposure": (0.8, 1.1),
    "sockets": (-0.3, 0.8),
    "eye_height": (0.03, 0.055),
    "brow_down": (-0.19, -0.15),
    "smile": (-0.01, 0.07),
    "teeth": (-1.0, 1.0),
    "hat": (-1.0, 0.6),
    "hat_tone": (0.05, 0.95),
    "shades": (-1.0, 1.0),
    "lens_width": (0.14, 0.17),
    "lens_height": (0.10, 0.125),
    "light": (-1.0, 1.0),
    "glasses_tone": (0.0, 0.15),
}

_EYES = -0.0625  # how far down the eyes are in an unmoved face
_FRAME = 0.055  # how thick a frame is
_ARM = 0.06  # how far an arm reaches out beyond its lens

#: Pictures drawn at a time, so that they stay in the processor's cache.
_BLOCK = 64


def make_glasses_faces(
    n_samples=1000, n_people=100, *, size=32, noise=0.03, random_state=None
):
    """Drawn faces of people with and without glasses.

    Heads, skin, hair, beards and brows differ between people; hats, clothes, walls,
    light, mouths and the place of the face between pictures. Glasses are shades or
    thin frames, either of them dark or light, and bare eyes may lie in dark sockets, so
    that linear models see little. Only glasses depend on the label, and where they can
    be is known.

    Parameters
    ----------
    n_samples : int, default=1000
        Every second one with glasses.
    n_people : int, default=100
        Each is drawn both with and without glasses, in pairs: with fewer than
        2 · n_people samples some people do not appear.
    size : int, default=32
        Height and width in pixels, at least 16.
    noise : float, default=0.03
        Standard deviation of independent noise on every pixel, before grey values are
        clipped to [0, 1].
    random_state : int, RandomState instance or None, default=None

    Returns
    -------
    X : ndarray of shape (n_samples, size * size)
        Grey values in [0, 1], row by row.
    y : ndarray of shape (n_samples,)
        1 with glasses, 0 without.
    person : ndarray of shape (n_samples,)
        Who is drawn, 0 … n_people − 1: the groups of an honest cross-validation.
    mask : ndarray of shape (size, size)
        True where glasses can be: a tenth of the picture. Everywhere else a picture is
        the same with and without them.

    See Also
    --------
    load_cmu_faces : Photographs of people with and without sunglasses.

    Examples
    --------
    >>> from agop import datasets
    >>> X, y, person, mask = datasets.make_glasses_faces(6, random_state=0)
    >>> X.shape, y, person, mask.sum()
    ((6, 1024), array([1, 0, 1, 1, 0, 0]), array([2, 1, 0, 1, 0, 2]), np.int64(108))
    """
    if size < 16:
        raise ValueError(f"A face of {size} pixels cannot be drawn; use 16 or more.")
    if n_people < 1:
        raise ValueError(f"n_people must be 1 at least; got {n_people}.")
    generator = check_random_state(random_state)
    order = generator.permutation(n_samples)
    y, person = order % 2, order // 2 % n_people
    scene = _scene(person, generator)
    X = _draw(scene, y, size)
    X += noise * generator.normal(size=X.shape)
    return X.clip(0, 1).reshape(n_samples, -1), y, person, _glasses_mask(size)


def _scene(person, generator) -> dict[str, np.ndarray]:
    """All that is drawn, by name, each of shape (n,)."""
    n_people = person.max(initial=0) + 1
    own = {
        name: generator.uniform(*limits, size=n_people)[person]
        for name, limits in _PERSON.items()
    }
    changing = {
        name: generator.uniform(*limits, size=len(person))
        for name, limits in _PICTURE.items()
    }
    scene = own | changing
    return scene | {"hair": scene["hair"] * scene["skin"]}


def _draw(scene: dict[str, np.ndarray], wears: np.ndarray, size: int) -> np.ndarray:
    """Noise-free pictures of shape (n, size, size)."""
    pictures = np.empty((len(wears), size, size))
    for start in range(0, len(wears), _BLOCK):
        rows = slice(start, start + _BLOCK)
        values = {name: value[rows, None, None] for name, value in scene.items()}
        face = SimpleNamespace(**values)
        canvas = _Canvas(len(wears[rows]), size, face)
        for paint in (_backdrop, _head, _features, _hat):
            paint(canvas, face)
        _glasses(canvas, face, wears[rows, None, None])
        light = 1 + face.light_right * canvas.right + face.light_down * canvas.down
        pictures[rows] = canvas.pictures * light * face.exposure
    return pictures


def _glasses_mask(size: int) -> np.ndarray:
    """Where glasses can be, from the largest ones and the farthest moves."""
    centres = _centres(size)
    largest = {name: high for name, (_, high) in (_PERSON | _PICTURE).items()}
    soft = 1 / size  # an edge fades within half a pixel on either side
    wide = largest["eye_distance"] + largest["lens_width"] + _ARM + largest["right"]
    high = largest["lens_height"] + largest["down"]
    inside = np.abs(centres - _EYES) < high + soft
    return inside[:, None] & (np.abs(centres) < wide + soft)


def _centres(size: int) -> np.ndarray:
    return (2 * np.arange(size) + 1) / size - 1


class _Canvas:
    """Pictures being painted, and soft shapes in the coordinates of their faces.

    A shape is an array that broadcasts to (n, size, size): the share of each pixel
    that it covers.
    """

    def __init__(self, n: int, size: int, face: SimpleNamespace):
        self.right, self.down = _centres(size), _centres(size)[:, None]
        self.pixel = 2 / size
        self.pictures = np.empty((n, size, size))
        self._x, self._y = self.right - face.right, self.down - face.down

    def paint(self, shape, tone):
        self.pictures += shape * (tone - self.pictures)

    def ellipse(self, x, y, width, height, power=2):
        """Half axes `width` and `height`; power 4 is a rounded rectangle."""
        radius = ((self._x - x) / width) ** power + ((self._y - y) / height) ** power
        distance = (radius ** (1 / power) - 1) * np.minimum(width, height)
        return np.clip(0.5 - distance / self.pixel, 0, 1)

    def bar(self, x, y, width, height, bend=0.0):
        """Half sides `width` and `height`; the ends lie lower by `bend`."""
        along = (self._x - x) / width
        return self._interval(self._x - x, width) * self._interval(
            self._y - y - bend * along**2, height
        )

    def below(self, y, bend=0.0):
        return np.clip(0.5 + (self._y - y - bend * self._x**2) / self.pixel, 0, 1)

    def _interval(self, distance, half):
        """Share of each pixel, centred at a distance, that lies in ±half."""
        ends = np.minimum(distance + self.pixel / 2, half)
        starts = np.maximum(distance - self.pixel / 2, -half)
        return np.maximum(ends - starts, 0) / self.pixel


def _backdrop(canvas, face):
    canvas.pictures[:] = face.wall
    canvas.paint(canvas.bar(face.furniture_right, -0.3, 0.3, 0.5), face.furniture)
    long = face.hair_length > 0
    canvas.paint(
        long
        * canvas.ellipse(
            0, face.hair_length, face.head_width + face.hair_volume, 0.6, power=4
        ),
        face.hair,
    )
    canvas.paint(canvas.bar(0, 0.8, 0.2, 0.3), 0.8 * face.skin)  # the neck
    canvas.paint(canvas.ellipse(0, 1.2, 0.85, 0.45), face.clothes)


def _head(canvas, face):
    width, height = face.head_width, face.head_height
    volume = face.hair_volume
    canvas.paint(canvas.ellipse(0, -0.1, width + volume, height + volume), face.hair)
    head = canvas.ellipse(0, 0, width, height)
    for side in (-1, 1):
        canvas.paint(canvas.ellipse(side * width, 0.0, 0.06, 0.13), 0.9 * face.skin)
    skin = canvas.below(face.hairline, bend=0.8)
    canvas.paint(head, face.hair + skin * (face.skin - face.hair))
    beard = np.clip(face.beard, 0, 1) * canvas.below(0.22, bend=-0.6)
    canvas.paint(beard * head, face.hair)


def _features(canvas, face):
    for side in (-1, 1):
        x = side * face.eye_distance
        socket = canvas.ellipse(x, _EYES, 0.16, 0.12)
        canvas.paint(socket * np.maximum(face.sockets, 0), 0.35 * face.skin)
        canvas.paint(canvas.ellipse(x, _EYES, face.eye_width, face.eye_height), 0.95)
        canvas.paint(canvas.ellipse(x, _EYES, 0.04, 0.04), 0.05)
        brow = canvas.bar(x, face.brow_down - 0.03, 0.12, face.brow_height, bend=0.03)
        canvas.paint(brow * face.brow_darkness, 0.5 * face.hair)
        canvas.paint(canvas.bar(side * 0.05, 0.2, 0.03, 0.02), 0.5 * face.skin)
    canvas.paint(0.3 * canvas.bar(0.02, 0.06, 0.03, face.nose_height), 0.4 * face.skin)
    mouth = 0.38, face.mouth_width
    bend = -2 * face.smile
    canvas.paint(canvas.bar(0, *mouth, 0.035 + face.smile / 3, bend), 0.35 * face.skin)
    teeth = canvas.bar(0, 0.37, 0.7 * face.mouth_width, 0.02, bend)
    canvas.paint(teeth * (face.teeth > 0), 0.95)


def _hat(canvas, face):
    crown = canvas.ellipse(0, -0.45, face.head_width + 0.05, 0.42)
    brim = canvas.bar(0, -0.42, face.head_width + 0.12, 0.05)
    shape = np.maximum(crown * (1 - canvas.below(-0.42)), brim)
    canvas.paint(shape * (face.hat > 0), face.hat_tone)


def _glasses(canvas, face, wears):
    shades = face.shades > 0
    tone = np.where(face.light > 0, 1 - face.glasses_tone, face.glasses_tone)
    width, height = face.lens_width, face.lens_height
    arm = face.eye_distance + width + _ARM / 2
    canvas.paint(wears * canvas.bar(0, _EYES - 0.03, 0.1, 0.02), tone)
    for side in (-1, 1):
        x = side * face.eye_distance
        lens = canvas.ellipse(x, _EYES, width, height, power=4)
        inner = canvas.ellipse(x, _EYES, width - _FRAME, height - _FRAME, power=4)
        canvas.paint(wears * shades * lens, tone)
        canvas.paint(wears * ~shades * (lens - inner), tone)
        bar = canvas.bar(side * arm, _EYES - 0.03, _ARM / 2, 0.02)
        canvas.paint(wears * bar, tone)
