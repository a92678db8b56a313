// Stage 4: blend one 16x16 tile, front to back, in 4x4 blocks whose state stays in registers.
#pragma once

#include "bins.h"
#include "simd.h"

namespace lhm {

constexpr int kSide = 4;                     // pixels along a block
constexpr int kPixels = kSide * kSide;       // lanes of a block
constexpr int kBlocks = kTile * kTile / kPixels;
constexpr int kVectors = kPixels / kLanes;   // registers a block takes
constexpr int kAtOnce = kVectors < 2 ? 1 : 2; // of these, how many one sweep over the Gaussians carries
constexpr int kChunk = 64;                   // Gaussians per bit mask

// Blended, premultiplied: colour, what still shines through, and the sum of weight * depth.
struct PixelBlock {
  alignas(64) float r[kPixels], g[kPixels], b[kPixels], transmittance[kPixels], depth[kPixels];
  alignas(64) float final_transmittance[kPixels]; // StopRule::kGsplat: before the Gaussian that ended the pixel
};

// A Gaussian as one tile sees it: alpha = 2^(log2_opacity - (p x + q y + t)^2 - (r y + s)^2), x and y counted from the
// tile's first pixel so that single precision is ample.
struct alignas(16) TileSplat {
  float p, q, t, r, s, log2_opacity, red, green, blue, depth;
};

alignas(64) static const float kPixelX[kPixels] = {0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3};
alignas(64) static const float kPixelY[kPixels] = {0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3};

LHM_INLINE vf alpha_at(const TileSplat& g, vf x, vf y) {
  const vf along = x * g.p + (y * g.q + g.t), across = y * g.r + g.s;
  return alpha_from_log2(g.log2_opacity - across * across - along * along);
}

template <StopRule kRule, bool kDepth>
LHM_INLINE void blend_block(PixelBlock& block, const TileSplat* splats, uint64_t mask, float x0, float y0) {
  for (int first = 0; first < kVectors; first += kAtOnce) {
    vf T[kAtOnce], F[kAtOnce], R[kAtOnce], G[kAtOnce], B[kAtOnce], D[kAtOnce], x[kAtOnce], y[kAtOnce];
    for (int i = 0; i < kAtOnce; i++) {
      const int o = (first + i) * kLanes;
      T[i] = load(block.transmittance + o), R[i] = load(block.r + o), G[i] = load(block.g + o), B[i] = load(block.b + o);
      F[i] = load(block.final_transmittance + o);
      if (kDepth) D[i] = load(block.depth + o);
      x[i] = load(kPixelX + o) + x0, y[i] = load(kPixelY + o) + y0;
    }
    for (uint64_t m = mask; m; m &= m - 1) {
      const TileSplat& g = splats[__builtin_ctzll(m)];
#pragma GCC unroll 2
      for (int i = 0; i < kAtOnce; i++) {
        vf w = T[i] * alpha_at(g, x[i], y[i]);
        if (kRule == StopRule::kGsplat) { // what would leave less than the stop is not blended, nor anything after it
          const vf next = T[i] - w;
          w = zero_unless_greater(next, kTransmittanceStop, w);
          F[i] = keep_unless_greater(next, kTransmittanceStop, F[i], next);
          T[i] = next;
        } else {
          T[i] -= w;
        }
        R[i] += w * g.red, G[i] += w * g.green, B[i] += w * g.blue;
        if (kDepth) D[i] += w * g.depth;
      }
    }
    for (int i = 0; i < kAtOnce; i++) {
      const int o = (first + i) * kLanes;
      store(block.transmittance + o, T[i]), store(block.r + o, R[i]), store(block.g + o, G[i]), store(block.b + o, B[i]);
      store(block.final_transmittance + o, kRule == StopRule::kGsplat ? F[i] : T[i]);
      if (kDepth) store(block.depth + o, D[i]);
    }
  }
}

// Bit k: the Gaussian reaches block k of the tile, by its box and by the circle of its longer axis.
LHM_INLINE uint32_t blocks_reached(const Splat& s, float tile_dx, float tile_dy) {
  constexpr float kReach = .5f * (kSide - 1); // from a block's centre to its outer pixel centres
  alignas(64) static const float kCentreX[kBlocks] = {1.5, 5.5, 9.5, 13.5, 1.5, 5.5, 9.5, 13.5,
                                                      1.5, 5.5, 9.5, 13.5, 1.5, 5.5, 9.5, 13.5};
  alignas(64) static const float kCentreY[kBlocks] = {1.5, 1.5, 1.5, 1.5, 5.5,  5.5,  5.5,  5.5,
                                                      9.5, 9.5, 9.5, 9.5, 13.5, 13.5, 13.5, 13.5};
  uint32_t reached = 0;
  for (int i = 0; i < kBlocks; i += kLanes) {
    vf dx = load(kCentreX + i) + tile_dx, dy = load(kCentreY + i) + tile_dy;
    dx = vmax(vmax(dx, -dx) - kReach, splat(0.f)), dy = vmax(vmax(dy, -dy) - kReach, splat(0.f));
    const vi in = (dx <= s.radius_x) & (dy <= s.radius_y) & (dx * dx + dy * dy <= s.radius2);
    reached |= mask_bits(in) << i;
  }
  return reached;
}

// rows[j] bit k -> columns[k] bit j
LHM_INLINE void transpose_bits(const uint16_t* rows, int count, uint64_t* columns) {
#if defined(__AVX512BW__)
  (void)count;
  const __m512i low = _mm512_load_si512(rows), high = _mm512_load_si512(rows + 32);
#pragma GCC unroll 16
  for (int k = 0; k < kBlocks; k++) {
    const __m512i bit = _mm512_set1_epi16((short)(1 << k));
    columns[k] = (uint64_t)_mm512_test_epi16_mask(low, bit) | (uint64_t)_mm512_test_epi16_mask(high, bit) << 32;
  }
#elif defined(__AVX2__)
  (void)count;
  __m256i bytes[2][2]; // [low or high byte of each row][rows 0..31, 32..63]
  for (int half = 0; half < 2; half++) {
    const __m256i a = _mm256_load_si256((const __m256i*)rows + 2 * half),
                  b = _mm256_load_si256((const __m256i*)rows + 2 * half + 1), ff = _mm256_set1_epi16(255);
    bytes[0][half] = _mm256_permute4x64_epi64(_mm256_packus_epi16(_mm256_and_si256(a, ff), _mm256_and_si256(b, ff)), 0xD8);
    bytes[1][half] =
        _mm256_permute4x64_epi64(_mm256_packus_epi16(_mm256_srli_epi16(a, 8), _mm256_srli_epi16(b, 8)), 0xD8);
  }
  for (int k = 7; k >= 0; k--)
    for (int byte = 0; byte < 2; byte++) {
      columns[8 * byte + k] = (uint32_t)_mm256_movemask_epi8(bytes[byte][0]) |
                              (uint64_t)(uint32_t)_mm256_movemask_epi8(bytes[byte][1]) << 32;
      for (auto& v : bytes[byte]) v = _mm256_add_epi8(v, v);
    }
#else
  memset(columns, 0, kBlocks * sizeof *columns);
  for (int j = 0; j < count; j++)
    for (uint32_t row = rows[j]; row; row &= row - 1) columns[__builtin_ctz(row)] |= uint64_t(1) << j;
#endif
}

// Goes through a tile's list in chunks, front to back: block(state, chunk, mask, k, first) blends those of the chunk that
// the mask names into block k, `first` being their place in the list. X0, Y0: the tile's first pixel. Blocks outside
// width x height, and those that nothing more is seen through, are left out.
template <class Block>
LHM_INLINE void sweep_tile(const Splat* splats, const uint32_t* list, int count, int X0, int Y0, int width, int height,
                           PixelBlock* blocks, const Block& block) {
  uint32_t alive = 0;
  for (int k = 0; k < kBlocks; k++) {
    PixelBlock& b = blocks[k];
    for (int i = 0; i < kPixels; i++) {
      b.transmittance[i] = b.final_transmittance[i] = 1.f;
      b.r[i] = b.g[i] = b.b[i] = b.depth[i] = 0.f;
    }
    if (X0 + k % 4 * kSide < width && Y0 + k / 4 * kSide < height) alive |= 1u << k;
  }
  alignas(64) TileSplat near[kChunk];
  alignas(64) uint16_t reached[kChunk];
  alignas(64) uint64_t masks[kBlocks];
  for (int done = 0; done < count && alive; done += kChunk) {
    const int n = std::min(kChunk, count - done);
    uint32_t any = 0;
    for (int j = 0; j < n; j++) {
      if (done + j + 8 < count) __builtin_prefetch(&splats[list[done + j + 8]]);
      const Splat& g = splats[list[done + j]];
      const float dx = X0 - g.u, dy = Y0 - g.v;
      near[j] = {g.p, g.q, g.p * dx + g.q * dy, g.r, g.r * dy, g.log2_opacity, g.red, g.green, g.blue, g.depth};
      reached[j] = (uint16_t)(blocks_reached(g, dx, dy) & alive);
      any |= reached[j];
    }
    for (int j = n; j < kChunk; j++) reached[j] = 0;
    if (!any) continue;
    transpose_bits(reached, n, masks);
    for (; any; any &= any - 1) {
      const int k = __builtin_ctz(any);
      block(blocks[k], near, masks[k], k, done);
      bool shines = false;
      for (int v = 0; v < kVectors; v++) shines |= any_greater(load(blocks[k].transmittance + v * kLanes), kTransmittanceStop);
      if (!shines) alive &= ~(1u << k);
    }
  }
}

template <StopRule kRule, bool kDepth>
static void blend_tile(const Splat* splats, const uint32_t* list, int count, int X0, int Y0, int width, int height,
                       PixelBlock* blocks) {
  sweep_tile(splats, list, count, X0, Y0, width, height, blocks,
             [](PixelBlock& block, const TileSplat* near, uint64_t mask, int k, int) __attribute__((always_inline)) {
               blend_block<kRule, kDepth>(block, near, mask, k % 4 * kSide, k / 4 * kSide);
             });
}

} // namespace lhm
