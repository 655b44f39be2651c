#pragma once
#include "common.hpp"

// Dense products [M, K] x [K, N] of all runs, under every layer: a tile of 64 x 64 a block, 4 x 4 a thread, both factors through shared
// memory. A Product says what the factors are (an image's patches need no matrix of their own) and where sums go. Long products over
// few outputs are split over K; each part has a place of its own and parts are added in order, so that the bits are always the same.
//
//   Product(op, play, run)
//   int rows(), columns(), length();                  M, N, K
//   float a(int m, int k), b(int k, int n);
//   void store(int m, int n, float sum, int part);
//   static constexpr bool a_along_k, b_along_k;       in which direction neighbours in memory lie
namespace klopf::cuda {

constexpr int tile_side = 64, tile_depth = 16, thread_side = 4;

template <class Product, class Op>
__global__ void __launch_bounds__(block_threads) product_kernel(Op op, Play play, int part_length) {
  const Product p(op, play, blockIdx.z);
  const int across = (p.columns() + tile_side - 1) / tile_side;
  const int m0 = static_cast<int>(blockIdx.x) / across * tile_side, n0 = static_cast<int>(blockIdx.x) % across * tile_side;
  const int from = static_cast<int>(blockIdx.y) * part_length;
  const int to = from + part_length < p.length() ? from + part_length : p.length();
  const int thread = static_cast<int>(threadIdx.x), row = thread / 16 * thread_side, column = thread % 16 * thread_side;
  __shared__ float a[tile_depth][tile_side + 4], b[tile_depth][tile_side + 4];
  const bool works = m0 + row < p.rows() && n0 + column < p.columns();
  float sum[thread_side][thread_side] = {};
  for (int k0 = from; k0 < to; k0 += tile_depth) {
    for (int i = 0; i < tile_side * tile_depth / block_threads; ++i) {
      const int along = thread % tile_depth, beside = thread / tile_depth + i * (block_threads / tile_depth);
      const int other = thread % tile_side, down = thread / tile_side + i * (block_threads / tile_side);
      const int ak = Product::a_along_k ? along : down, am = Product::a_along_k ? beside : other;
      const int bk = Product::b_along_k ? along : down, bn = Product::b_along_k ? beside : other;
      a[ak][am] = m0 + am < p.rows() && k0 + ak < to ? p.a(m0 + am, k0 + ak) : 0.0f;
      b[bk][bn] = n0 + bn < p.columns() && k0 + bk < to ? p.b(k0 + bk, n0 + bn) : 0.0f;
    }
    __syncthreads();
    for (int k = 0; works && k < tile_depth; ++k)
      for (int i = 0; i < thread_side; ++i)
        for (int j = 0; j < thread_side; ++j) sum[i][j] = fmaf(a[k][row + i], b[k][column + j], sum[i][j]);
    __syncthreads();
  }
  for (int i = 0; i < thread_side; ++i)
    for (int j = 0; j < thread_side; ++j)
      if (m0 + row + i < p.rows() && n0 + column + j < p.columns()) p.store(m0 + row + i, n0 + column + j, sum[i][j], blockIdx.y);
}

// rows, columns and length as the Product will say; parts: how many K is split into.
template <class Product, class Op>
void multiply(cudaStream_t stream, const Op& op, const Play& play, int64_t rows, int64_t columns, int64_t length, int parts = 1) {
  const int64_t part = ((length + parts - 1) / parts + tile_depth - 1) / tile_depth * tile_depth;
  const dim3 grid(blocks_for(rows, tile_side) * blocks_for(columns, tile_side), static_cast<unsigned>(parts),
                  static_cast<unsigned>(play.runs));
  launch(stream, product_kernel<Product, Op>, grid, dim3(block_threads), op, play, static_cast<int>(part));
}

}  // namespace klopf::cuda
