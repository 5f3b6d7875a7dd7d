// Windows of the basemap, and which blocks of a frame's patch see enough of it.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "memory.hpp"
#include "orientation.hpp"

namespace cvgl {

// A map in square tiles, row by row, of which some are there: their data is null where there is none.
struct Tiles {
  int side, rows, columns;
  std::vector<Plane> planes;

  const Plane& at(std::int64_t row, std::int64_t column) const {
    return planes[static_cast<std::size_t>(row * columns + column)];
  }
};

// A window of a map, zero where it reaches outside: the map's own memory where it lies inside, else a copy.
class Window {
 public:
  Window(const Plane& map, std::int64_t left, std::int64_t top, int height, int width) {
    if (left >= 0 && top >= 0 && left + width <= map.width && top + height <= map.height) {
      plane_ = {map.data + top * map.stride + left, map.stride, height, width};
      return;
    }
    make_copy(height, width);
    std::memset(copy_.get(), 0, static_cast<std::size_t>(height) * static_cast<std::size_t>(width));
    const std::int64_t from = std::clamp<std::int64_t>(left, 0, map.width);
    const std::int64_t to = std::clamp<std::int64_t>(left + width, 0, map.width);
    if (from >= to) return;
    for (std::int64_t y = std::max<std::int64_t>(top, 0); y < std::min<std::int64_t>(top + height, map.height); ++y) {
      std::memcpy(&copy_[static_cast<std::size_t>((y - top) * width + (from - left))], map.data + y * map.stride + from,
                  static_cast<std::size_t>(to - from));
    }
  }

  // The same of tiles, the first of which begins at column and row 0.
  Window(const Tiles& tiles, std::int64_t left, std::int64_t top, int height, int width) {
    make_copy(height, width);
    const std::int64_t side = tiles.side;
    for (std::int64_t y = 0; y < height;) {
      const std::int64_t row = floor_of(top + y, side), rows = std::min<std::int64_t>(height, (row + 1) * side - top);
      for (std::int64_t x = 0; x < width;) {
        const std::int64_t column = floor_of(left + x, side);
        const std::int64_t end = std::min<std::int64_t>(width, (column + 1) * side - left);
        const bool inside = row >= 0 && row < tiles.rows && column >= 0 && column < tiles.columns;
        const Plane tile = inside ? tiles.at(row, column) : Plane{nullptr, 0, 0, 0};
        const auto bytes = static_cast<std::size_t>(end - x);
        for (std::int64_t line = y; line < rows; ++line) {
          unsigned char* const to = &copy_[static_cast<std::size_t>(line * width + x)];
          if (tile.data == nullptr) {
            std::memset(to, 0, bytes);
          } else {
            std::memcpy(to, tile.row(static_cast<int>(top + line - row * side)) + (left + x - column * side), bytes);
          }
        }
        x = end;
      }
      y = rows;
    }
  }

  const Plane& plane() const { return plane_; }

  // Whether there is data everywhere.
  bool whole() const {
    for (int y = 0; y < plane_.height; ++y) {
      if (std::memchr(plane_.row(y), 0, static_cast<std::size_t>(plane_.width)) != nullptr) return false;
    }
    return true;
  }

 private:
  static std::int64_t floor_of(std::int64_t value, std::int64_t by) {
    return value >= 0 ? value / by : -((by - 1 - value) / by);
  }

  void make_copy(int height, int width) {
    copy_ = room_for<unsigned char>(static_cast<std::size_t>(height) * static_cast<std::size_t>(width));
    plane_ = {copy_.get(), width, height, width};
  }

  Room<unsigned char> copy_;
  Plane plane_{};
};

// Rows and columns of the upper left corners of the blocks of a square mask, in a grid about its middle, that see at
// least a share of frame and ground (whose data may be null: all of it is known).
inline std::vector<std::int64_t> block_corners(const Plane& mask, const Plane& ground, int side, double share) {
  const int start = mask.height % side / 2;
  const double enough = share * side * side;
  const auto seen = [&](const Plane& plane, int row, int column) {
    int count = 0;
    for (int y = row; y < row + side; ++y) {
      const unsigned char* pixels = plane.row(y) + column;
      count += side - static_cast<int>(std::count(pixels, pixels + side, 0));
    }
    return count >= enough;
  };
  std::vector<std::int64_t> corners;
  for (int row = start; row + side <= mask.height; row += side) {
    for (int column = start; column + side <= mask.width; column += side) {
      if (seen(mask, row, column) && (ground.data == nullptr || seen(ground, row, column))) {
        corners.insert(corners.end(), {row, column});
      }
    }
  }
  return corners;
}

}  // namespace cvgl
