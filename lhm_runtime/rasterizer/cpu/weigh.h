// Instead of a picture, what it is made of: the Gaussians that show in each pixel, near to far, and how much of each
// does. weight = alpha * transmittance, as blend.h takes them.
#pragma once

#include "blend.h"

namespace lhm {

// weights[j][i]: of Gaussian j, if the mask names it, in pixel i of the block. Never inlined: counting and writing must
// agree on what is not 0 to the last bit.
template <StopRule kRule>
__attribute__((noinline)) void weigh_block(PixelBlock& block, const TileSplat* splats, uint64_t mask, float x0, float y0,
                                           float (*weights)[kPixels]) {
  for (int o = 0; o < kPixels; o += kLanes) {
    vf T = load(block.transmittance + o);
    const vf x = load(kPixelX + o) + x0, y = load(kPixelY + o) + y0;
    for (uint64_t m = mask; m; m &= m - 1) {
      const int j = __builtin_ctzll(m);
      const vf w = T * alpha_at(splats[j], x, y);
      T -= w;
      store(weights[j] + o, kRule == StopRule::kGsplat ? zero_unless_greater(T, kTransmittanceStop, w) : w);
    }
    store(block.transmittance + o, T);
  }
}

// show(pixel, Gaussian, weight) for every weight above `least` in a tile; each pixel's from near to far.
template <StopRule kRule, class Show>
static void weigh_tile(const Splat* splats, const uint32_t* list, int count, int X0, int Y0, int width, int height,
                       PixelBlock* blocks, float least, const Show& show) {
  alignas(64) float weights[kChunk][kPixels];
  sweep_tile(splats, list, count, X0, Y0, width, height, blocks,
             [&](PixelBlock& block, const TileSplat* near, uint64_t mask, int k, int first) {
               const int x = k % 4 * kSide, y = k / 4 * kSide;
               weigh_block<kRule>(block, near, mask, x, y, weights);
               uint32_t inside = 0; // pixels of the block that are pixels of the picture
               for (int i = 0; i < kPixels; i++)
                 inside |= (uint32_t)(X0 + x + i % kSide < width && Y0 + y + i / kSide < height) << i;
               const size_t corner = (size_t)(Y0 + y) * width + X0 + x;
               for (; mask; mask &= mask - 1) {
                 const int j = __builtin_ctzll(mask);
                 uint32_t shows = 0;
                 for (int i = 0; i < kPixels; i += kLanes) shows |= mask_bits(load(weights[j] + i) > splat(least)) << i;
                 for (shows &= inside; shows; shows &= shows - 1) {
                   const int i = __builtin_ctz(shows);
                   show(corner + (size_t)(i / kSide) * width + i % kSide, list[first + j], weights[j][i]);
                 }
               }
             });
}

} // namespace lhm
