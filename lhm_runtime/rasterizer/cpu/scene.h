// Canonical Gaussians in the layout the kernel reads them in: structure of arrays, in blocks of 64.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <new>
#include <vector>

#include "contract.h"
#include "kernel.h"

namespace lhm {

constexpr int kBlock = 64;

template <class T>
struct AlignedAllocator {
  using value_type = T;
  AlignedAllocator() = default;
  template <class U>
  AlignedAllocator(const AlignedAllocator<U>&) {}
  T* allocate(size_t n) { return static_cast<T*>(::operator new(n * sizeof(T), std::align_val_t(64))); }
  void deallocate(T* p, size_t) { ::operator delete(p, std::align_val_t(64)); }
  bool operator==(const AlignedAllocator&) const { return true; }
  bool operator!=(const AlignedAllocator&) const { return false; }
};
template <class T>
using Array = std::vector<T, AlignedAllocator<T>>;

// Displacement of one block of Gaussians per unit of one expression coefficient; only blocks that move are kept.
struct ExpressionBlock {
  int32_t coefficient;
  alignas(64) float xyz[3][kBlock];
};

struct Gaussians {
  int count, blocks, influences; // influences: 4 or 8, zero-padded
  Array<float> mean[3], cov[6], rgb[3];
  Array<float> log2_opacity;
  Array<float> extent;                        // radius of the visible ellipse in standard deviations; 0: never seen
  Array<uint8_t> skin_joints;                 // [padded, influences]
  Array<float> skin_weights;                  // [padded, influences]
  Array<int> block_influences;                // [blocks] 1, 2, 4 or 8: enough for each of its Gaussians
  Array<float> turns;                         // [padded] 0 for constrained Gaussians, else 1
  Array<int> expression_begin;                // [blocks + 1] into expression_blocks
  Array<ExpressionBlock> expression_blocks;   // by block, then coefficient

  explicit Gaussians(const lhm_scene_desc& d)
      : count(d.count), blocks((d.count + kBlock - 1) / kBlock), influences(d.influences <= 4 ? 4 : 8) {
    const size_t padded = (size_t)blocks * kBlock;
    for (auto* group : {mean, rgb})
      for (int k = 0; k < 3; k++) group[k].assign(padded, 0.f);
    for (auto& c : cov) c.assign(padded, 0.f);
    log2_opacity.assign(padded, 0.f);
    extent.assign(padded, 0.f);
    turns.assign(padded, 1.f);
    for (int i = 0; i < count; i++) {
      for (int k = 0; k < 3; k++) mean[k][i] = d.means[3 * i + k], rgb[k][i] = d.rgb[3 * i + k];
      for (int k = 0; k < 6; k++) cov[k][i] = d.covariances[6 * i + k];
      const float opacity = d.opacity[i];
      if (opacity > kAlphaMin) {
        log2_opacity[i] = std::log2(opacity);
        extent[i] = std::sqrt(2.f * std::log(opacity / kAlphaMin));
      }
      if (d.constrained && d.constrained[i]) turns[i] = 0.f;
    }
    skin(d);
    express(d);
  }

 private:
  void skin(const lhm_scene_desc& d) {
    skin_joints.assign((size_t)blocks * kBlock * influences, 0);
    skin_weights.assign((size_t)blocks * kBlock * influences, 0.f);
    block_influences.assign(blocks, 1);
    for (int i = 0; i < count; i++)
      for (int k = 0; k < d.influences; k++) {
        const float weight = d.skin_weights[(size_t)i * d.influences + k];
        skin_joints[(size_t)i * influences + k] = d.skin_joints[(size_t)i * d.influences + k];
        skin_weights[(size_t)i * influences + k] = weight;
        int& enough = block_influences[i / kBlock];
        while (weight != 0.f && enough <= k) enough *= 2;
      }
  }

  void express(const lhm_scene_desc& d) {
    expression_begin.assign(blocks + 1, 0);
    int row = 0;
    for (int b = 0; b < blocks; b++) {
      const int first = row;
      while (row < d.moved_count && d.moved[row] < (b + 1) * kBlock) row++;
      for (int e = 0; e < d.coefficients && row > first; e++) {
        ExpressionBlock block = {};
        block.coefficient = e;
        bool moves = false;
        for (int r = first; r < row; r++)
          for (int k = 0; k < 3; k++) {
            const float v = d.directions[((size_t)r * d.coefficients + e) * 3 + k];
            block.xyz[k][d.moved[r] % kBlock] = v;
            moves |= v != 0.f;
          }
        if (moves) expression_blocks.push_back(block);
      }
      expression_begin[b + 1] = (int)expression_blocks.size();
    }
  }
};

} // namespace lhm
