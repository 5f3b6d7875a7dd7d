from collections.abc import Sequence
from math import inf

import numpy as np
from numpy.typing import NDArray

def rectify(
    image: NDArray[np.uint8],
    map3x3: NDArray[np.float64],
    fx: float,
    fy: float,
    cx: float,
    cy: float,
    distortion: Sequence[float],
    out_h: int,
    out_w: int,
    threads: int = 0,
    lens: str = "pinhole",
    slant: float = inf,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Resample a raw frame to a rectified patch, once, with an antialiasing footprint.

    Every output pixel is the mean over the parallelogram that its square covers in the source, to first order, on
    a grid of about one bilinear sample per source pixel (at most 16 along each axis). The mapping is output pixel
    -> map3x3 -> ideal camera coordinates -> distortion -> fx, fy, cx, cy.

    Args:
        image: (H, W) or (H, W, 3), sides up to 32767; rows at any stride, the pixels of a row lying together.
        map3x3: (3, 3), invertible; output pixel (u, v, 1) -> ideal (undistorted, normalised) camera
            coordinates, scaled so that points in front of the camera have a positive third component.
        fx, fy, cx, cy: intrinsics of ``image``, pixels; the centre of the first pixel is (0, 0).
        distortion: of a pinhole k1, k2, p1, p2[, k3[, k4, k5, k6]] as OpenCV orders them, of a fisheye k1, k2, k3, k4;
            empty for none.
        out_h, out_w: size of the patch, pixels, 1 to 16384.
        threads: 1 to 64; 0 for one per core. The answer does not depend on it.
        lens: "pinhole", or "fisheye" for OpenCV's equidistant one.
        slant: how far from the camera a point of the map's plane may lie to be seen, in distances of the plane itself,
            1 or more: 2 for 60 degrees off the plane's normal.

    Returns:
        The patch, (out_h, out_w) or (out_h, out_w, 3) uint8, zero where nothing is seen; and the mask,
        (out_h, out_w) uint8, 255 where the source position of the pixel's centre is in front of the camera,
        no further than ``slant``, where the lens is one-to-one, and inside [-0.5, W - 0.5] x [-0.5, H - 0.5], else 0.

    Raises:
        ValueError: an array of another type or shape, a singular or non-finite map, unusable intrinsics or
            sizes.
        TypeError: an argument that is no array or number at all.
    """

def warp_into(
    out: NDArray[np.float32] | NDArray[np.float16],
    mask: NDArray[np.uint8],
    image: NDArray[np.uint8],
    pixels: str,
    maps: NDArray[np.float64],
    fx: float,
    fy: float,
    cx: float,
    cy: float,
    distortion: Sequence[float],
    scale: Sequence[float],
    offset: Sequence[float],
    channels: str = "rgb",
    threads: int = 0,
    lens: str = "pinhole",
    slant: float = inf,
) -> None:
    """Resample a raw frame straight into a network's input, once for each map; see `rectify` for the resampling.

    Args:
        out: (B, 3, h, w) float32 or float16, C-contiguous, sides 1 to 16384; is written: grey * scale + offset, and 0
            where nothing is seen. Halves are rounded to nearest, ties to even.
        mask: (B, h, w) uint8, C-contiguous; is written: 255 where the camera sees the pixel's centre, else 0.
        image: as the camera delivers it, sides up to 32767; rows at any stride, the pixels of a row lying together.
        pixels: "bgr" or "rgb": (H, W, 3); "grey": (H, W), three equal channels; "nv12": (H * 3 / 2, W), luma above
            pairs of chroma; "yuyv": (H, W, 2). YUV is ITU-R BT.601, limited range, with the chroma in the middle of
            the pixels that share it; averages are converted, and clipped to 0..255.
        maps: (B, 3, 3), each as `rectify` takes it.
        fx, fy, cx, cy, distortion, lens, slant: as `rectify` takes them.
        scale, offset: (3,) by output channel.
        channels: order of the output's channels, "rgb" or "bgr".
        threads: 1 to 64; 0 for one per core. The answer does not depend on it.

    Raises:
        ValueError: an array of another type, shape or layout, a singular or non-finite map, unusable numbers.
        TypeError: an argument that is no array or number at all, or an output that is read-only.
    """

def gpu_warp_head(maps: int) -> int:
    """Bytes in front of the frame in what `gpu_warp_arguments` prepares for that many maps.

    Raises:
        ValueError: not 1 to 65535 maps.
    """

def gpu_warp_arguments(
    staged: NDArray[np.uint8],
    address: int,
    image: NDArray[np.uint8],
    pixels: str,
    maps: NDArray[np.float64],
    fx: float,
    fy: float,
    cx: float,
    cy: float,
    distortion: Sequence[float],
    scale: Sequence[float],
    offset: Sequence[float],
    channels: str,
    out_h: int,
    out_w: int,
    half: bool,
    out: int,
    mask: int,
    lens: str = "pinhole",
    slant: float = inf,
) -> None:
    """Write the arguments of the GPU's warp and its maps, in single precision, in front of a frame.

    Args:
        staged: (N,) uint8, C-contiguous, the bytes that will be copied to the GPU; the first `gpu_warp_head` of them
            are written.
        address: where on the device the first byte of ``staged`` will lie.
        image: the frame, C-contiguous, a part of ``staged`` at `gpu_warp_head` or later.
        pixels, maps, fx, fy, cx, cy, distortion, scale, offset, channels: as `warp_into` takes them.
        out_h, out_w: sides of the output, 1 to 16384.
        half: the output is float16, else float32.
        out: device address of the output, (B, 3, out_h, out_w).
        mask: device address of (B, out_h, out_w) uint8.
        lens, slant: as `rectify` takes them.

    Raises:
        ValueError: an array of another type, shape, layout or place, a singular or non-finite map, unusable numbers.
        TypeError: an argument that is no array or number at all.
    """

def correlate_blocks(
    field: NDArray[np.complex64],
    ground: NDArray[np.complex64],
    corners: NDArray[np.int64],
    side: int,
    search: int,
    threads: int = 0,
) -> NDArray[np.float32]:
    """Correlate blocks of an orientation field with their surroundings, each by itself.

    Args:
        field: (H, W), C-contiguous.
        ground: (H + 2 search, W + 2 search), C-contiguous; ground[search:-search, search:-search] lies under field.
        corners: (B, 2) rows and columns in ``field`` of the blocks' upper left corners.
        side: of the blocks, pixels, 1 to 256.
        search: shifts to try in each direction, pixels, 0 to 256.
        threads: 1 to 64; 0 for one per core. The answer does not depend on it.

    Returns:
        (B, 2 search + 1, 2 search + 1): entry (b, search + dy, search + dx) is the sum over block b of the real part
        of conj(field) times ground, the ground being read dy rows further down and dx columns further right.

    Raises:
        ValueError: an array of another type, shape or layout, or a block outside the field.
    """

def orientation(
    grey: NDArray[np.uint8], mask: NDArray[np.uint8] | None, sigma: float, noise: float
) -> NDArray[np.complex64]:
    """Doubled-angle gradient orientation of a grey image.

    Args:
        grey: (H, W) grey levels; the pixels of a row lying together, as in all images here.
        mask: (H, W), zero where there is no picture; None for a picture everywhere.
        sigma: of the Gaussian that smooths before the derivative, pixels, up to 64; it reaches 4 sigma, and the image
            is mirrored about its border pixels.
        noise: gradient, grey levels per pixel, at which a pixel counts half.

    Returns:
        (H, W) complex64: (gx + i gy)^2 / (m (m + noise)) for the Sobel gradient (gx, gy) of magnitude m; zero on the
        outermost pixels, and where a pixel of the 7 x 7 around is outside the mask (or, with a mask, the image).

    Raises:
        ValueError: an array of another type, shape or layout, or sigma out of range.
    """

def reduce(
    image: NDArray[np.uint8], mask: NDArray[np.uint8], reduction: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A grey image at a half or a third of its detail.

    Args:
        image: (H, W), both multiples of the reduction.
        mask: (H, W), nonzero where the image is seen.
        reduction: 1 to 3.

    Returns:
        The rounded mean of each square of pixels, and 255 where all of them are seen, else 0; both
        (H / reduction, W / reduction).

    Raises:
        ValueError: an array of another type, shape or layout, or another reduction.
    """

def resample(
    image: NDArray[np.uint8], mask: NDArray[np.uint8], between: NDArray[np.float64]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A grey image and its mask seen through a homography, to the bit as OpenCV's warpPerspective does it.

    Only where a position lies halfway between two steps of rounding, its last bit may decide otherwise.

    Args:
        image: (H, W), zero where the mask is.
        mask: (H, W).
        between: (3, 3) from pixels (x, y, 1) of the answer to pixels of ``image``; C-contiguous.

    Returns:
        Both as seen, (H, W): the image interpolated bilinearly at positions rounded to 1/32 of a pixel, the mask's
        nearest values; 0 beyond the border. Where the mask is zero all around, the image is not looked at.

    Raises:
        ValueError: an array of another type, shape or layout, or a homography that is not finite.
    """

def ground_field(
    pixels: NDArray[np.uint8] | list[list[NDArray[np.uint8] | None]],
    left: int,
    top: int,
    width: int,
    height: int,
    reduction: int,
    sigma: float,
    noise: float,
) -> tuple[NDArray[np.complex64], NDArray[np.uint8] | None]:
    """Orientation field of a window of the basemap: read, reduced and oriented.

    Args:
        pixels: (H, W) grey levels, zero where there is no data; or rows of square tiles of one size, None where there
            is no data.
        left, top: column and row of the window's first pixel; outside the map there is no data.
        width, height: of the answer, reduced pixels.
        reduction: 1 to 3.
        sigma, noise: as of :func:`orientation`.

    Returns:
        The field (height, width), and (height, width) 255 where all pixels of a square hold data, else 0: the mask
        that the field was made with. None for the mask where there is data everywhere: then there was none.

    Raises:
        ValueError: an array of another type, shape or layout, or a number out of range.
        TypeError: pixels that are neither.
    """

def block_corners(
    mask: NDArray[np.uint8], known: NDArray[np.uint8] | None, side: int, search: int, seen: float
) -> NDArray[np.int64]:
    """Where the blocks of a patch lie that see both frame and basemap.

    Args:
        mask: (n, n), nonzero where the patch sees the ground.
        known: (n + 2 search, n + 2 search), nonzero where the basemap has data; None for everywhere.
        side: of the blocks, pixels, 1 to 256; they lie in a grid about the patch's middle.
        search: pixels by which the basemap's window reaches further than the patch, 0 to 256.
        seen: share of its pixels that a block needs, in the patch and in the basemap under it.

    Returns:
        (B, 2) rows and columns of their upper left corners.

    Raises:
        ValueError: an array of another type, shape or layout, or a number out of range.
    """

def standardise(surfaces: NDArray[np.float32]) -> int:
    """Bring every surface to mean 0 and standard deviation 1, in place; a level one becomes 0.

    Args:
        surfaces: (B, n, n), C-contiguous.

    Returns:
        The place, counted through (n, n), where the sum of the surfaces is highest.

    Raises:
        TypeError: an array of another type or layout.
        ValueError: surfaces without a place.
    """

def pose_design(
    corners: NDArray[np.int64],
    side: int,
    size: int,
    gsd: float,
    height: float,
    east: float,
    north: float,
    ahead_east: float = 0.0,
    ahead_north: float = 0.0,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """How blocks are displaced by a camera's pose, and by their height above the ground.

    To first order a camera that leans by (a, b) more than assumed sees the point at (p, q) from below it displaced by
    (a, b) height + (a p + b q) (p, q) / height, of which the part of the patch's middle is a shift; what stands above
    the ground is seen away from the point below the camera, by its height over the camera's.

    Args:
        corners: (B, 2) rows and columns of the blocks' upper left corners.
        side: of the blocks, pixels.
        size: of the patch, pixels.
        gsd: metres a pixel.
        height: of the camera above the ground, metres.
        east, north: of the patch's middle from the point below the camera, metres: away from there what stands above
            the ground leans.
        ahead_east, ahead_north: the same, as the tilts take it.

    Returns:
        (B, 2, 6) derivative of each block's displacement (east, north) by shift east, shift north (metres), turn
        (radians, clockwise), scale and the two tilts; and (B, 2) its displacement by a metre of height.

    Raises:
        ValueError: corners of another type or shape, or a length that is not positive.
    """

def judge_blocks(
    surfaces: NDArray[np.float32],
    design: NDArray[np.float64],
    lean: NDArray[np.float64],
    rises: NDArray[np.float64],
    pose: NDArray[np.float64],
    measured: NDArray[np.float64],
    gsd: float,
    vote: float,
) -> tuple[float, float, float]:
    """What blocks say for the pose that was fitted to them.

    Args:
        surfaces, design, lean, rises, gsd: as of :func:`fit_pose`, of at least one block. A block may be on the ground
            or at any of the heights; outside its surface the surface's border counts.
        pose, measured: (6,) and (B, 2) as :func:`fit_pose` returns them.
        vote: pixels.

    Returns:
        Fisher's combination, in standard deviations of chance, of the ranks that the best of each block's places has
        in its surface; the share of blocks whose own best place is closer than ``vote`` to one of theirs; and the root
        mean square, per axis, metres, by which those measurements differ from the pose that do by less than ``vote``
        (``vote`` itself where there are none).

    Raises:
        ValueError: an array of another type, shape or layout.
    """

class Template:
    """A square orientation field ready to be slid over windows: its spectrum.

    Args:
        field: (n, n) complex64, C-contiguous, n up to 4096.
        reach: pixels that a window is larger than the field on each side, up to 4096.

    Raises:
        ValueError: an array of another type, shape or layout, or a reach out of range.
    """

    def __init__(self, field: NDArray[np.complex64], reach: int) -> None: ...
    @property
    def norm(self) -> float:
        """Square root of the sum of the field's squared magnitudes; an empty field's is 0."""

def best_match(templates: Sequence[Template], window: NDArray[np.complex64]) -> tuple[int, int, int, float, float]:
    """The highest correlation of templates within a window.

    Args:
        templates: at least one, all of one size and reach, none of them empty.
        window: (n + 2 reach, n + 2 reach) complex64, C-contiguous.

    Returns:
        The index of the best template; columns right and rows down by which its first pixel lies from the window's;
        the real part of the sum of conj(field) times window there, over the template's norm; and the mean over all
        templates and shifts of the square of that.

    Raises:
        ValueError: templates that do not go together, or an array of another type, shape or layout.
    """

def match_windows(
    looks: Sequence[tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.float64] | None]],
    searches: Sequence[Sequence[int]],
    windows: Sequence[tuple[int, NDArray[np.uint8] | list[list[NDArray[np.uint8] | None]], int, int]],
    reach: int,
    reduction: int,
    sigma: float,
    noise: float,
    threads: int,
) -> list[tuple[int, int, int, float, float] | None]:
    """The highest correlation of a frame's looks within each of some windows of the basemap.

    What :func:`resample`, :func:`orientation`, :class:`Template`, :func:`ground_field` and :func:`best_match` do one by
    one.

    Args:
        looks: lists of (image, mask, between): (n, n) grey and its mask, n up to 4096, and the homography (3, 3) that
            it is seen through, as :func:`resample` takes it, or None for as it is.
        searches: for each the numbers of its looks, at least one, all of one size.
        windows: lists of (search, pixels, left, top): the number of its search, and where its first pixel lies, as
            :func:`ground_field` takes them; it is as large as a look and ``reach`` on every side.
        reach: pixels at that reduction, up to 4096.
        reduction, sigma, noise: as of :func:`ground_field`; the looks have been reduced already.
        threads: 1 to 64; 0 for one per core. The answer does not depend on it.

    Returns:
        For each window what :func:`best_match` answers, the index counting its search's looks; None where one of them
        shows nothing.

    Raises:
        ValueError: an array of another type, shape or layout, or a number out of range.
        TypeError: what is no array, list or tuple where one is expected.
    """

def register_looks(
    looks: Sequence[tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.float64] | None]],
    sites: Sequence[tuple[NDArray[np.uint8] | list[list[NDArray[np.uint8] | None]], int, int]],
    jobs: Sequence[tuple[int, int, int, float, float, float, float, float, Sequence[float]]],
    reduction: int,
    search: int,
    gsd: float,
    seen: float,
    fewest: int,
    rises: Sequence[float],
    rise_cost: float,
    block_sigma: float,
    radii: Sequence[int],
    rounds: int,
    vote: float,
    exact: bool,
    prior_weight: Sequence[float],
    sigma: float,
    noise: float,
    threads: int,
) -> list[tuple[list[float], NDArray[np.float64], int, float, float, float] | None]:
    """Register looks on sites of the basemap: blocks, their correlation, a pose and its evidence.

    What :func:`resample`, :func:`orientation`, :func:`ground_field`, :func:`block_corners`, :func:`correlate_blocks`,
    :func:`pose_design`, :func:`standardise`, :func:`fit_pose`, :func:`judge_blocks`, :func:`peak_covariances` and
    :func:`refit_pose` do one by one; what jobs share is made once.

    Args:
        looks: as of :func:`match_windows`.
        sites: lists of (pixels, left, top), as :func:`ground_field` takes them; as large as the looks that may lie
            there, all of one size, and ``search`` on every side.
        jobs: lists of (look, site, side, height, east, north, ahead_east, ahead_north, prior_mean): the numbers of look
            and site, what :func:`block_corners` and :func:`pose_design` take, and the (6,) prior of :func:`fit_pose`.
        reduction: of the basemap to the looks' scale, 1 to 3.
        search: pixels at that reduction, 1 to 256.
        gsd: metres a pixel at that reduction.
        seen: as of :func:`block_corners`.
        fewest: with fewer blocks nothing is fitted.
        rises, rise_cost, radii, rounds, prior_weight: as of :func:`fit_pose`, which starts where all blocks together
            are best.
        block_sigma: its ``sigma``.
        vote: as of :func:`judge_blocks`.
        exact: the pose is that of :func:`refit_pose`; else its covariance is the inverse of the fit's information,
            widened where the blocks scatter more than ``block_sigma``.
        sigma, noise: as of :func:`ground_field`.
        threads: 1 to 64; 0 for one per core. The answer does not depend on it.

    Returns:
        For each job the pose (6), its covariance (6, 6), the number of blocks, and evidence, votes and spread as
        :func:`judge_blocks` tells them of the first fit; None where there are too few blocks.

    Raises:
        ValueError: an array of another type, shape or layout, a number out of range, or no pose is determined.
        TypeError: what is no array, list or tuple where one is expected.
    """

def peak_covariances(
    surfaces: NDArray[np.float32],
    measured: NDArray[np.float64],
    lean: NDArray[np.float64],
    rises: NDArray[np.float64],
    gsd: float,
) -> NDArray[np.float64]:
    """How well correlation peaks tell their places.

    A peak lies where the gradient of the surface is zero. To first order noise n moves it by H^-1 grad n, with H the
    curvature of the surface at the peak, so its covariance is H^-1 G H^-1, with G the covariance of the gradient of the
    noise, which the surface shows away from the peak (as of any extremum estimate: Van Trees, Detection, Estimation,
    and Modulation Theory I, 2.4; van der Vaart, Asymptotic Statistics, 5.3).

    Args:
        surfaces, lean, rises, gsd: as of :func:`fit_pose`, standardised, at least 3 a side.
        measured: (B, 2) places of the peaks as if on the ground, as :func:`fit_pose` returns them; a peak is taken at
            the one of its heights where the surface is highest.

    Returns:
        (B, 2, 2) covariance of the places, east and north, m^2; at least 0.3 pixels on each axis.

    Raises:
        ValueError: an array of another type, shape or layout.
    """

def refit_pose(
    pose: NDArray[np.float64],
    measured: NDArray[np.float64],
    covariances: NDArray[np.float64],
    design: NDArray[np.float64],
    prior_mean: NDArray[np.float64],
    prior_weight: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A pose fitted again to the same peaks, each with its own covariance, by Student's weights.

    Args:
        pose: (6,) to start from.
        measured, design, prior_mean, prior_weight: as of :func:`fit_pose`, at least one block.
        covariances: (B, 2, 2) of the peaks, m^2, symmetric; the entry above the diagonal is read.

    Returns:
        The pose (6,) and its covariance (6, 6), widened where the peaks scatter more than they say.

    Raises:
        ValueError: an array of another type, shape or layout, or no pose is determined.
    """

def alike_places(
    seen: NDArray[np.complex64],
    ground: NDArray[np.complex64],
    search: int,
    apart: float,
    alike: float,
    reached: float,
    near: int,
    most: int,
) -> list[list[float]]:
    """Places in a window of the map that look like its middle, both on the map and to the frame; best first.

    Where the map is nowhere alike the frame is not asked: it would change nothing.

    Args:
        seen: (n, n) orientation field of the frame, zero where it sees nothing, n up to 256.
        ground: (n + 2 search, n + 2 search) of the map around it; both C-contiguous.
        search: shifts that are tried in each direction, pixels, 0 to 256.
        apart: closer than this to the middle or to a better place is the same place, pixels.
        alike: share of the map's correlation with itself that a place must have, above 0.
        reached: share of the frame's own correlation peak that must be reached there...
        near: ...within so many pixels on each axis.
        most: places that are returned at most.

    Returns:
        For each place: pixels right and down of the middle, the map's share there, and the frame's.

    Raises:
        ValueError: an array of another type, shape or layout, or a number out of range.
    """

def fit_pose(
    surfaces: NDArray[np.float32],
    design: NDArray[np.float64],
    lean: NDArray[np.float64],
    rises: NDArray[np.float64],
    start: NDArray[np.float64],
    prior_mean: NDArray[np.float64],
    prior_weight: NDArray[np.float64],
    gsd: float,
    rise_cost: float,
    sigma: float,
    radii: Sequence[int],
    rounds: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Fit a camera's pose to the correlation surfaces of blocks.

    Alternates between measuring each block, at the best place of its surface within a radius of where the pose puts
    it, and least squares with Student's t weights.

    Args:
        surfaces: (B, n, n), n odd; entry (n // 2 + dy, n // 2 + dx) is the agreement at dx pixels east, dy south.
        design: (B, 2, 6) displacement of each block east and north (metres) by the pose's six numbers.
        lean: (B, 2) displacement east and north by a metre of height above the ground.
        rises: (R,) heights above the ground that a block may have, metres, ascending.
        start: (6,) pose to start from.
        prior_mean, prior_weight: (6,) mean and inverse variance of the pose before the blocks are heard.
        gsd: metres a pixel.
        rise_cost: what a surface must gain for each further height, not negative.
        sigma: standard deviation of one block's measurement, metres.
        radii: pixels, one for each time that the blocks are measured.
        rounds: of reweighting after each measurement.

    Returns:
        The pose (6,), its information matrix (6, 6), and the last measurements (B, 2), metres east and north.

    Raises:
        ValueError: an array of another type, shape or layout, or no pose is determined.
    """
