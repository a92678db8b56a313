// Colours with which the drawn pixels come nearest to those wanted: SIRT (Gregor and Benson 2008), each round one walk
// over the pairs that lhm_scene_weigh listed.
#pragma once

#include "scene.h"

namespace lhm {

typedef float v4f __attribute__((vector_size(16)));

struct alignas(32) PulledColour {
  v4f rgb, pull; // now, and the sum over pixels of weight * residual
};

static void solve_colours(const lhm_colour_problem& p) {
  Array<PulledColour> colours(p.count);
  for (int g = 0; g < p.count; g++) colours[g].rgb = (v4f){p.rgb[3 * g], p.rgb[3 * g + 1], p.rgb[3 * g + 2], 0.f};
  for (int round = 0; round < p.rounds; round++) {
    for (auto& colour : colours) colour.pull = (v4f){};
    for (int64_t pixel = 0; pixel < p.pixels; pixel++) {
      const float trust = p.trust[pixel];
      if (trust == 0.f) continue;
      const int64_t begin = p.pixel_begin[pixel], end = p.pixel_begin[pixel + 1];
      const float* wanted = p.wanted + 3 * pixel;
      v4f even = {wanted[0], wanted[1], wanted[2], 0.f}, odd = {}; // two sums, so that neither waits for the other
      int64_t i = begin;
      for (; i + 1 < end; i += 2) {
        even -= p.weight[i] * colours[p.gaussian[i]].rgb;
        odd -= p.weight[i + 1] * colours[p.gaussian[i + 1]].rgb;
      }
      if (i < end) even -= p.weight[i] * colours[p.gaussian[i]].rgb;
      const v4f residual = (even + odd) * trust;
      for (i = begin; i < end; i++) colours[p.gaussian[i]].pull += p.weight[i] * residual;
    }
    for (int g = 0; g < p.count; g++)
      for (int k = 0; k < 3; k++) {
        const float low = p.rgb[3 * g + k] - p.limit[g], high = p.rgb[3 * g + k] + p.limit[g];
        const float moved = colours[g].rgb[k] + p.step[g] * colours[g].pull[k];
        const float bounded = moved > low ? (moved < high ? moved : high) : low;
        colours[g].rgb[k] = bounded > 0.f ? (bounded < 1.f ? bounded : 1.f) : 0.f; // 0 for NaN
      }
  }
  for (int g = 0; g < p.count; g++)
    for (int k = 0; k < 3; k++) p.solved[3 * g + k] = colours[g].rgb[k];
}

} // namespace lhm
