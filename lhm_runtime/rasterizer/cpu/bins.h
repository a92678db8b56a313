// Stages 2 and 3: order the visible Gaussians by depth, then list them tile by tile in that order.
#pragma once

#include "project.h"

namespace lhm {

constexpr int64_t kMaxTileEntries = int64_t(1) << 28; // 1 GiB of indices; a photographic avatar needs 1e5 to 1e6

class Bins {
 public:
  void start(int gaussians, int width, int height) {
    tiles_x = (width + kTile - 1) / kTile, tiles_y = (height + kTile - 1) / kTile;
    keys_.resize(gaussians), sorted_.resize(gaussians), order_.resize(gaussians), rect_.resize(gaussians);
    begin.resize((size_t)tiles_x * tiles_y + 1);
    cursor_.resize((size_t)tiles_x * tiles_y);
    corner_.assign((size_t)(tiles_x + 1) * (tiles_y + 1), 0);
    visible = 0, nearest_ = UINT32_MAX, farthest_ = 0;
  }

  // Branch-free: an unseen Gaussian is written and then overwritten by the next.
  static inline __attribute__((always_inline)) void add(Bins& s, uint32_t index, float depth, TileRect r) {
    const uint32_t seen = depth > 0.f;
    uint32_t key;
    memcpy(&key, &depth, 4); // positive floats order as their bits do
    s.keys_[s.visible] = (uint64_t)key << 32 | index;
    s.rect_[index] = r;
    s.visible += seen;
    s.nearest_ = seen && key < s.nearest_ ? key : s.nearest_;
    s.farthest_ = seen && key > s.farthest_ ? key : s.farthest_;
    int32_t* c = s.corner_.data();
    const int row = s.tiles_x + 1;
    c[r.y0 * row + r.x0] += seen, c[r.y0 * row + r.x1 + 1] -= seen;
    c[(r.y1 + 1) * row + r.x0] -= seen, c[(r.y1 + 1) * row + r.x1 + 1] += seen;
  }

  // Radix sort on exactly the bits that differ: two passes for a person, three for a deep scene. Stable, so equal
  // depths keep the order of their indices.
  void sort_by_depth() {
    const uint32_t span = visible ? farthest_ - nearest_ : 0;
    uint64_t *from = keys_.data(), *to = sorted_.data();
    for (int i = 0; i < visible; i++) from[i] -= (uint64_t)nearest_ << 32;
    const int passes = span >> (2 * kDigit) ? 3 : span >> kDigit ? 2 : 1;
    for (int pass = 0; pass < passes; pass++) {
      const int shift = 32 + pass * kDigit;
      uint32_t place[1 << kDigit] = {};
      for (int i = 0; i < visible; i++) place[from[i] >> shift & kDigitMask]++;
      uint32_t sum = 0;
      for (uint32_t& p : place) {
        const uint32_t n = p;
        p = sum, sum += n;
      }
      if (pass == passes - 1)
        for (int i = 0; i < visible; i++) order_[place[from[i] >> shift & kDigitMask]++] = (uint32_t)from[i];
      else
        for (int i = 0; i < visible; i++) to[place[from[i] >> shift & kDigitMask]++] = from[i];
      std::swap(from, to);
    }
  }

  // False when the lists would outgrow kMaxTileEntries; entries() then says by how much.
  bool list_by_tile() {
    int64_t sum = 0;
    for (int y = 0; y < tiles_y; y++) { // the corner marks, summed along both axes, are the tile counts
      int32_t* row = &corner_[(size_t)y * (tiles_x + 1)];
      const int32_t* above = row - (tiles_x + 1);
      int32_t run = 0;
      for (int x = 0; x < tiles_x; x++) {
        run += row[x];
        row[x] = run + (y ? above[x] : 0);
        begin[(size_t)y * tiles_x + x] = (uint32_t)sum;
        cursor_[(size_t)y * tiles_x + x] = (uint32_t)sum;
        sum += row[x];
      }
    }
    entries = sum;
    if (sum > kMaxTileEntries) return false;
    begin[(size_t)tiles_x * tiles_y] = (uint32_t)sum;
    if (list.size() < (size_t)sum + kSpare) list.resize((size_t)sum + sum / 4 + kSpare);
    // Nearly every Gaussian of a person lies in at most 2x2 tiles: write four times without a branch, the writes
    // that are not wanted into spare places past the end.
    uint32_t spare[3];
    uint32_t *const cursor = cursor_.data(), *const out = list.data();
    for (int i = 0; i < visible; i++) {
      const uint32_t g = order_[i];
      const TileRect r = rect_[g];
      const unsigned wide = r.x1 - r.x0, high = r.y1 - r.y0;
      uint32_t* at = cursor + (size_t)r.y0 * tiles_x + r.x0;
      if (__builtin_expect((wide < 2) & (high < 2), 1)) {
        spare[0] = spare[1] = spare[2] = (uint32_t)sum;
        uint32_t *b = wide ? at + 1 : &spare[0], *c = high ? at + tiles_x : &spare[1],
                 *d = wide & high ? at + tiles_x + 1 : &spare[2];
        out[(*at)++] = g, out[(*b)++] = g, out[(*c)++] = g, out[(*d)++] = g;
      } else {
        for (unsigned y = 0; y <= high; y++, at += tiles_x)
          for (unsigned x = 0; x <= wide; x++) out[at[x]++] = g;
      }
    }
    return true;
  }

  int tiles_x = 0, tiles_y = 0, visible = 0;
  int64_t entries = 0;
  Array<uint32_t> begin; // [tiles + 1] into list
  Array<uint32_t> list;  // indices of Gaussians, tile by tile, near to far

 private:
  static constexpr int kDigit = 12, kSpare = 16;
  static constexpr uint64_t kDigitMask = (1 << kDigit) - 1;
  Array<uint64_t> keys_, sorted_; // depth bits << 32 | index
  Array<uint32_t> order_, cursor_;
  Array<TileRect> rect_;
  Array<int32_t> corner_;
  uint32_t nearest_ = 0, farthest_ = 0;
};

} // namespace lhm
