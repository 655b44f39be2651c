#pragma once
#include "common.hpp"

// Dense products [M, K] x [K, N] of all runs, under every layer: a block takes a tile of the result and goes along K, a slice of both
// factors after the other through shared memory, the next on its way while one is used. A Product says what the factors are (an image's
// patches need no matrix of their own) and where sums go. Long products over few outputs are split over K; each part has a place of
// its own and parts are added in order, so that the bits are always the same.
//
//   Product(op, play, run, indices)                   indices: a Product::Indices, made on the host from op
//   int rows(), columns(), length();                  M, N, K
//   int group();                                      so many rows, one after the other, are stored together
//   RowPlace row(m); ColumnPlace column(n);           what an element's address owes to m, to n,
//   ADepth a_depth(k); BDepth b_depth(k);             and to k
//   float a(RowPlace, ADepth), b(ColumnPlace, BDepth);
//   void store(int g, int n, const float* sums, int distance, int part);   sums of the group's rows
//   static constexpr bool a_along_k, b_along_k, stores_along_rows;    in which direction neighbours in memory lie
namespace klopf::cuda {

constexpr int tile_depth = 16;

// What a thread moves of the slices [tile_depth, side] of one factor.
template <class Sums, int side, bool along_k, class Place>
struct Mover {
  static constexpr int count = side * tile_depth / block_threads, places = along_k ? count : 1;
  static constexpr int row = side + Sums::padding;
  Place place[places];
  float value[count];
  __device__ static int place_of(int i) {
    const int thread = static_cast<int>(threadIdx.x);
    return along_k ? thread / tile_depth + i * (block_threads / tile_depth) : thread % side;
  }
  __device__ static int depth_of(int i) {
    const int thread = static_cast<int>(threadIdx.x);
    return along_k ? thread % tile_depth : thread / side + i * (block_threads / side);
  }
  // at(depth, place) is the value; beyond `left` there are zeros.
  template <class Depth, class At>
  __device__ void load(const Depth* depth, int left, const At& at) {
#pragma unroll
    for (int i = 0; i < count; ++i) value[i] = depth_of(i) < left ? at(place[along_k ? i : 0], depth[depth_of(i)]) : 0.0f;
  }
  __device__ void store(float* slice) const {
#pragma unroll
    for (int i = 0; i < count; ++i) slice[depth_of(i) * row + place_of(i)] = Sums::rounded(value[i]);
  }
};

// A thread's sums of a tile, in float32.
template <int tile_rows, int tile_columns>
struct Sums {
  static constexpr int high = tile_rows / 16, wide = tile_columns / 16;
  static constexpr int padding = 4;  // of rows in shared memory, so that they begin in different banks
  float at[high][wide] = {};
  int row = static_cast<int>(threadIdx.x) / 16 * high, column = static_cast<int>(threadIdx.x) % 16 * wide;
  __device__ static float rounded(float x) { return x; }
  __device__ void add(const float* a, const float* b) {
#pragma unroll
    for (int k = 0; k < tile_depth; ++k) {
      float left[high], right[wide];
#pragma unroll
      for (int i = 0; i < high; ++i) left[i] = a[k * (tile_rows + padding) + row + i];
#pragma unroll
      for (int j = 0; j < wide; ++j) right[j] = b[k * (tile_columns + padding) + column + j];
#pragma unroll
      for (int i = 0; i < high; ++i)
#pragma unroll
        for (int j = 0; j < wide; ++j) at[i][j] = fmaf(left[i], right[j], at[i][j]);
    }
  }
  __device__ void write(float* tile) const {
#pragma unroll
    for (int i = 0; i < high; ++i)
#pragma unroll
      for (int j = 0; j < wide; ++j) tile[(row + i) * (tile_columns + padding) + column + j] = at[i][j];
  }
};

// The same by the tensor cores, from factors rounded to TF32: of eight warps, four beside two.
template <int tile_rows, int tile_columns>
struct TensorSums {
  static constexpr int padding = 8;  // as a fragment's threads read it
  static constexpr int side = 16, depth = 8, high = tile_rows / 4 / side, wide = tile_columns / 2 / side;
  nvcuda::wmma::fragment<nvcuda::wmma::accumulator, side, side, depth, float> sum[high][wide];
  int row = static_cast<int>(threadIdx.x) / 32 % 4 * (tile_rows / 4), column = static_cast<int>(threadIdx.x) / 128 * (tile_columns / 2);
  __device__ TensorSums() {
#pragma unroll
    for (auto& line : sum)
#pragma unroll
      for (auto& s : line) nvcuda::wmma::fill_fragment(s, 0.0f);
  }
  __device__ static float rounded(float x) { return nvcuda::wmma::__float_to_tf32(x); }
  __device__ void add(const float* a, const float* b) {
    using namespace nvcuda;
#pragma unroll
    for (int k = 0; k < tile_depth; k += depth) {
      wmma::fragment<wmma::matrix_a, side, side, depth, wmma::precision::tf32, wmma::col_major> left[high];
      wmma::fragment<wmma::matrix_b, side, side, depth, wmma::precision::tf32, wmma::row_major> right[wide];
#pragma unroll
      for (int i = 0; i < high; ++i) wmma::load_matrix_sync(left[i], a + k * (tile_rows + padding) + row + i * side, tile_rows + padding);
#pragma unroll
      for (int j = 0; j < wide; ++j)
        wmma::load_matrix_sync(right[j], b + k * (tile_columns + padding) + column + j * side, tile_columns + padding);
#pragma unroll
      for (int i = 0; i < high; ++i)
#pragma unroll
        for (int j = 0; j < wide; ++j) wmma::mma_sync(sum[i][j], left[i], right[j], sum[i][j]);
    }
  }
  __device__ void write(float* tile) const {
#pragma unroll
    for (int i = 0; i < high; ++i)
#pragma unroll
      for (int j = 0; j < wide; ++j)
        nvcuda::wmma::store_matrix_sync(tile + (row + i * side) * (tile_columns + padding) + column + j * side, sum[i][j],
                                        tile_columns + padding, nvcuda::wmma::mem_row_major);
  }
};

template <class Product, template <int, int> class TileSums, int tile_rows, int tile_columns, class Op>
__global__ void __launch_bounds__(block_threads, 2) product_kernel(Op op, Play play, typename Product::Indices indices, int part_length) {
  using Sum = TileSums<tile_rows, tile_columns>;
  using A = Mover<Sum, tile_rows, Product::a_along_k, typename Product::RowPlace>;
  using B = Mover<Sum, tile_columns, Product::b_along_k, typename Product::ColumnPlace>;
  constexpr int slices = tile_depth * (A::row + B::row), tile = tile_rows * B::row;
  __shared__ __align__(32) float memory[2 * slices > tile ? 2 * slices : tile];
  // What k adds to addresses, of two slices: computed once for all threads.
  __shared__ typename Product::ADepth a_depth[2][tile_depth];
  __shared__ typename Product::BDepth b_depth[2][tile_depth];

  const Product p(op, play, static_cast<int>(blockIdx.z), indices);
  const int thread = static_cast<int>(threadIdx.x), across = (p.columns() + tile_columns - 1) / tile_columns;
  const int groups = tile_rows / p.group();  // of a tile; rows behind them are not used
  const int g0 = static_cast<int>(blockIdx.x) / across * groups, n0 = static_cast<int>(blockIdx.x) % across * tile_columns;
  const int from = static_cast<int>(blockIdx.y) * part_length;
  const int to = from + part_length < p.length() ? from + part_length : p.length();
  const auto within = [](int i, int count) { return i < count ? i : count - 1; };  // beyond the end the last again; it is not stored

  const auto find_depths = [&](int slice) {
    const int k = within(from + slice * tile_depth + thread % 32, p.length());
    if (thread < tile_depth) a_depth[slice & 1][thread] = p.a_depth(k);
    else if (thread >= 32 && thread < 32 + tile_depth) b_depth[slice & 1][thread - 32] = p.b_depth(k);
  };
  A a;
  B b;
#pragma unroll
  for (int i = 0; i < A::places; ++i) a.place[i] = p.row(within(g0 * p.group() + A::place_of(i), p.rows()));
#pragma unroll
  for (int i = 0; i < B::places; ++i) b.place[i] = p.column(within(n0 + B::place_of(i), p.columns()));
  const auto load = [&](int slice) {
    const int left = to - from - slice * tile_depth;
    a.load(a_depth[slice & 1], left, [&](const auto& place, const auto& depth) { return p.a(place, depth); });
    b.load(b_depth[slice & 1], left, [&](const auto& place, const auto& depth) { return p.b(place, depth); });
  };
  const auto store = [&](int slice) {
    float* to_slices = memory + (slice & 1) * slices;
    a.store(to_slices);
    b.store(to_slices + tile_depth * A::row);
  };

  Sum sums;
  const int count = (to - from + tile_depth - 1) / tile_depth;
  find_depths(0);
  find_depths(1);
  __syncthreads();
  load(0);
  store(0);
  __syncthreads();
  for (int slice = 0; slice < count; ++slice) {
    const float* now = memory + (slice & 1) * slices;
    if (slice + 1 < count) load(slice + 1);
    sums.add(now, now + tile_depth * A::row);
    if (slice + 1 < count) store(slice + 1);
    if (slice + 2 < count) find_depths(slice + 2);
    __syncthreads();
  }
  sums.write(memory);
  __syncthreads();
  for (int i = thread; i < groups * tile_columns; i += block_threads) {
    const int g = Product::stores_along_rows ? i % groups : i / tile_columns,
              n = Product::stores_along_rows ? i / groups : i % tile_columns;
    if (g0 + g < p.rows() / p.group() && n0 + n < p.columns())
      p.store(g0 + g, n0 + n, memory + g * p.group() * B::row + n, B::row, static_cast<int>(blockIdx.y));
  }
}

// rows, columns, length and group as the Product will say; parts: how many K is split into.
struct ProductSize {
  int64_t rows, columns, length;
  int group = 1, parts = 1;
};

template <class Product, int tile_rows, int tile_columns, class Op>
void multiply_by_tiles(const Queue& queue, const Op& op, const Play& play, const typename Product::Indices& indices,
                       const ProductSize& size) {
  const int64_t part = ((size.length + size.parts - 1) / size.parts + tile_depth - 1) / tile_depth * tile_depth;
  const int64_t groups = tile_rows / size.group;
  const dim3 grid(blocks_for(size.rows / size.group, groups) * blocks_for(size.columns, tile_columns), static_cast<unsigned>(size.parts),
                  static_cast<unsigned>(play.runs));
  launch(queue.stream,
         queue.tf32 ? product_kernel<Product, TensorSums, tile_rows, tile_columns, Op>
                    : product_kernel<Product, Sums, tile_rows, tile_columns, Op>,
         grid, dim3(block_threads), op, play, indices, static_cast<int>(part));
}

template <class Product, class Op>
void multiply(const Queue& queue, const Op& op, const Play& play, const typename Product::Indices& indices, const ProductSize& size) {
  // Time is taken to go with the tiles' area, larger ones being better at it, as long as there are blocks for a large GPU.
  const auto time = [&](int tile_rows, int tile_columns, double slowness) {
    constexpr double busy = 264;
    const double tiles = static_cast<double>(blocks_for(size.rows, tile_rows)) * blocks_for(size.columns, tile_columns);
    const double blocks = tiles * size.parts * play.runs;
    return tiles * tile_rows * tile_columns * slowness * (blocks < busy ? busy / blocks : 1.0);
  };
  const double large = time(128, 64, 1), narrow = time(128, 32, 1.25), small = time(64, 32, 1.6);
  if (large <= narrow && large <= small) multiply_by_tiles<Product, 128, 64>(queue, op, play, indices, size);
  else if (narrow <= small) multiply_by_tiles<Product, 128, 32>(queue, op, play, indices, size);
  else multiply_by_tiles<Product, 64, 32>(queue, op, play, indices, size);
}

}  // namespace klopf::cuda
