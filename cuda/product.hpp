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

constexpr int row_floats = tile_side + 4;  // of a tile in shared memory: rows begin in different banks

// Slices of both factors, `tile_depth` deep, from k0 on; zeros beyond the ends.
template <class Product>
__device__ void load_slices(const Product& p, int m0, int n0, int k0, int to, float (&a)[tile_depth][row_floats],
                            float (&b)[tile_depth][row_floats]) {
  const int thread = static_cast<int>(threadIdx.x);
  for (int i = 0; i < tile_side * tile_depth / block_threads; ++i) {
    const int along = thread % tile_depth, beside = thread / tile_depth + i * (block_threads / tile_depth);
    const int other = thread % tile_side, down = thread / tile_side + i * (block_threads / tile_side);
    const int ak = Product::a_along_k ? along : down, am = Product::a_along_k ? beside : other;
    const int bk = Product::b_along_k ? along : down, bn = Product::b_along_k ? beside : other;
    a[ak][am] = m0 + am < p.rows() && k0 + ak < to ? p.a(m0 + am, k0 + ak) : 0.0f;
    b[bk][bn] = n0 + bn < p.columns() && k0 + bk < to ? p.b(k0 + bk, n0 + bn) : 0.0f;
  }
}

// A thread's 4 x 4 sums of a tile, in float32.
struct Sums {
  float at[thread_side][thread_side] = {};
  int row = static_cast<int>(threadIdx.x) / 16 * thread_side, column = static_cast<int>(threadIdx.x) % 16 * thread_side;
  __device__ void add(const float (&a)[tile_depth][row_floats], const float (&b)[tile_depth][row_floats]) {
    for (int k = 0; k < tile_depth; ++k)
      for (int i = 0; i < thread_side; ++i)
        for (int j = 0; j < thread_side; ++j) at[i][j] = fmaf(a[k][row + i], b[k][column + j], at[i][j]);
  }
  __device__ void finish() {}
};

// The same by the tensor cores, from factors rounded to TF32: a warp has 16 x 32 sums, and hands them to the threads in the end.
struct TensorSums : Sums {
  static constexpr int side = 16, depth = 8;
  nvcuda::wmma::fragment<nvcuda::wmma::accumulator, side, side, depth, float> sum[2];
  int warp = static_cast<int>(threadIdx.x) / 32, m = warp % 4 * side, n = warp / 4 * 2 * side;
  __device__ TensorSums() {
    for (auto& s : sum) nvcuda::wmma::fill_fragment(s, 0.0f);
  }
  __device__ void add(const float (&a)[tile_depth][row_floats], const float (&b)[tile_depth][row_floats]) {
    using namespace nvcuda;
    for (int k = 0; k < tile_depth; k += depth) {
      wmma::fragment<wmma::matrix_a, side, side, depth, wmma::precision::tf32, wmma::col_major> fa;
      wmma::load_matrix_sync(fa, &a[k][m], row_floats);
      for (int i = 0; i < fa.num_elements; ++i) fa.x[i] = wmma::__float_to_tf32(fa.x[i]);
      for (int half = 0; half < 2; ++half) {
        wmma::fragment<wmma::matrix_b, side, side, depth, wmma::precision::tf32, wmma::row_major> fb;
        wmma::load_matrix_sync(fb, &b[k][n + half * side], row_floats);
        for (int i = 0; i < fb.num_elements; ++i) fb.x[i] = wmma::__float_to_tf32(fb.x[i]);
        wmma::mma_sync(sum[half], fa, fb, sum[half]);
      }
    }
  }
  __device__ void finish() {
    __shared__ __align__(32) float all[tile_side][row_floats];
    for (int half = 0; half < 2; ++half)
      nvcuda::wmma::store_matrix_sync(&all[m][n + half * side], sum[half], row_floats, nvcuda::wmma::mem_row_major);
    __syncthreads();
    for (int i = 0; i < thread_side; ++i)
      for (int j = 0; j < thread_side; ++j) at[i][j] = all[row + i][column + j];
  }
};

template <class Product, class TileSums, class Op>
__global__ void __launch_bounds__(block_threads) product_kernel(Op op, Play play, int part_length) {
  const Product p(op, play, blockIdx.z);
  const int across = (p.columns() + tile_side - 1) / tile_side;
  const int m0 = static_cast<int>(blockIdx.x) / across * tile_side, n0 = static_cast<int>(blockIdx.x) % across * tile_side;
  const int from = static_cast<int>(blockIdx.y) * part_length;
  const int to = from + part_length < p.length() ? from + part_length : p.length();
  __shared__ __align__(32) float a[tile_depth][row_floats], b[tile_depth][row_floats];
  TileSums sums;
  for (int k0 = from; k0 < to; k0 += tile_depth) {
    load_slices(p, m0, n0, k0, to, a, b);
    __syncthreads();
    sums.add(a, b);
    __syncthreads();
  }
  sums.finish();
  for (int i = 0; i < thread_side; ++i)
    for (int j = 0; j < thread_side; ++j) {
      const int m = m0 + sums.row + i, n = n0 + sums.column + j;
      if (m < p.rows() && n < p.columns()) p.store(m, n, sums.at[i][j], static_cast<int>(blockIdx.y));
    }
}

// rows, columns and length as the Product will say; parts: how many K is split into.
template <class Product, class Op>
void multiply(const Queue& queue, const Op& op, const Play& play, int64_t rows, int64_t columns, int64_t length, int parts = 1) {
  const int64_t part = ((length + parts - 1) / parts + tile_depth - 1) / tile_depth * tile_depth;
  const dim3 grid(blocks_for(rows, tile_side) * blocks_for(columns, tile_side), static_cast<unsigned>(parts),
                  static_cast<unsigned>(play.runs));
  launch(queue.stream, queue.tf32 ? product_kernel<Product, TensorSums, Op> : product_kernel<Product, Sums, Op>, grid, dim3(block_threads),
         op, play, static_cast<int>(part));
}

}  // namespace klopf::cuda
