// A GRU along time, forward and backward, for groups of rows that have weights of their own: `gru_sequence.py` in C++.
//
// A thread takes a few rows through all steps. Rows never meet, so threads wait for each other only at the end, and a
// row's numbers depend neither on the number of threads nor on the rows beside it. All tensors are dense: gates
// [groups, steps, rows, 3 * size] (reset, update, new), hidden [groups, rows, size], resets [groups, steps, rows], weight
// [groups, 3 * size, size], bias [groups, 3 * size], states [groups, steps, rows, size], and kept [groups, steps, rows,
// 4 * size], which the forward pass leaves for the backward one: reset, update, new, and the state's part of new.

#include <ATen/cpu/vec/vec.h>

#include <algorithm>
#include <cstdint>
#include <vector>

namespace {

using Floats = std::vector<float>;
using Vec = at::vec::Vectorized<float>;

constexpr int64_t LANES = Vec::size();
constexpr int64_t PANEL = 2 * LANES;
// The sums of so many rows and one panel stay in registers, of which AVX-512 has 32, others 16 or more.
constexpr int MOST_ROWS = LANES == 16 ? 12 : 6;

int64_t round_up(int64_t x, int64_t multiple) { return (x + multiple - 1) / multiple * multiple; }

// The matrix [depth, width] at `source` with these strides, as panels [depth, PANEL], the last one padded with zeros.
Floats in_panels(const float* source, int64_t depth, int64_t width, int64_t depth_stride, int64_t width_stride) {
  Floats panels(depth * round_up(width, PANEL));
  for (int64_t column = 0; column < width; ++column) {
    float* panel = panels.data() + column / PANEL * PANEL * depth + column % PANEL;
    for (int64_t k = 0; k < depth; ++k) panel[k * PANEL] = source[k * depth_stride + column * width_stride];
  }
  return panels;
}

// out [ROWS, PANEL] = start + x [ROWS, depth] times one panel. Rows of `start` and `out` are these strides apart.
template <int ROWS>
void times_panel(const float* x, int64_t depth, const float* panel, const float* start, int64_t start_stride, float* out,
                 int64_t out_stride) {
  // The compiler's own vectors: arrays of ATen's would not stay in registers.
  typedef float Lanes __attribute__((vector_size(LANES * sizeof(float)), aligned(sizeof(float)), may_alias));
  const auto load = [](const float* place) { return *reinterpret_cast<const Lanes*>(place); };
  Lanes left[ROWS], right[ROWS];
  for (int r = 0; r < ROWS; ++r) {
    left[r] = load(start + r * start_stride);
    right[r] = load(start + r * start_stride + LANES);
  }
  for (int64_t k = 0; k < depth; ++k) {
    const Lanes weight_left = load(panel + k * PANEL), weight_right = load(panel + k * PANEL + LANES);
    for (int r = 0; r < ROWS; ++r) {
      left[r] += x[r * depth + k] * weight_left;
      right[r] += x[r * depth + k] * weight_right;
    }
  }
  for (int r = 0; r < ROWS; ++r) {
    *reinterpret_cast<Lanes*>(out + r * out_stride) = left[r];
    *reinterpret_cast<Lanes*>(out + r * out_stride + LANES) = right[r];
  }
}

// out [rows, width] = start + x [rows, depth] times the matrix in `panels`; `width` is a multiple of PANEL.
template <int ROWS = MOST_ROWS>
void product(int64_t rows, const float* x, int64_t depth, const Floats& panels, const float* start, int64_t start_stride,
             float* out, int64_t width) {
  if constexpr (ROWS > 1) {
    if (rows < ROWS) return product<ROWS - 1>(rows, x, depth, panels, start, start_stride, out, width);
  }
  for (int64_t column = 0; column < width; column += PANEL) {
    const float* panel = panels.data() + column * depth;
    times_panel<ROWS>(x, depth, panel, start + column, start_stride, out + column, width);
  }
}

Vec sigmoid(Vec x) { return Vec(1) / (Vec(1) + x.neg().exp()); }

Vec tanh(Vec x) { return Vec(2) / (Vec(1) + (x * Vec(-2)).exp()) - Vec(1); }

// Calls `function(group, first row, number of rows)` for all rows in parallel, at most MOST_ROWS at once.
template <typename Function>
void in_blocks(int64_t groups, int64_t rows, int64_t threads, const Function& function) {
  int64_t blocks = (rows + MOST_ROWS - 1) / MOST_ROWS;
  while (groups * blocks % threads && blocks < rows) ++blocks;  // as many for each thread
#pragma omp parallel for collapse(2) num_threads(threads) schedule(static)
  for (int64_t group = 0; group < groups; ++group) {
    for (int64_t block = 0; block < blocks; ++block) {
      const int64_t first = rows * block / blocks;
      function(group, first, rows * (block + 1) / blocks - first);
    }
  }
}

// One step of a row: `state` moves on, and `kept` (if any) gets what the backward pass needs.
void step_forward(const float* gates, const float* products, float* state, float* kept, int64_t size) {
  for (int64_t j = 0; j < size; j += LANES) {
    const int64_t n = std::min(LANES, size - j);
    const auto load = [&](const float* row, int64_t part) { return Vec::loadu(row + part * size + j, n); };
    const Vec reset = sigmoid(load(gates, 0) + load(products, 0)), update = sigmoid(load(gates, 1) + load(products, 1));
    const Vec from_hidden = load(products, 2), new_state = tanh(load(gates, 2) + reset * from_hidden);
    (new_state + update * (load(state, 0) - new_state)).store(state + j, n);
    if (kept == nullptr) continue;
    reset.store(kept + j, n);
    update.store(kept + size + j, n);
    new_state.store(kept + 2 * size + j, n);
    from_hidden.store(kept + 3 * size + j, n);
  }
}

// The gradients of a row's gates, and of the products that were added to them. `carried` is the gradient that the state
// after the step has from later steps, and becomes that of the state before it, but for what goes through the products.
void step_backward(const float* grad, const float* before, const float* kept, float* carried, float* grad_gates,
                   float* grad_products, int64_t size) {
  for (int64_t j = 0; j < size; j += LANES) {
    const int64_t n = std::min(LANES, size - j);
    const auto load = [&](const float* row, int64_t part) { return Vec::loadu(row + part * size + j, n); };
    const Vec one(1), total = load(grad, 0) + load(carried, 0);
    const Vec reset = load(kept, 0), update = load(kept, 1), new_state = load(kept, 2), from_hidden = load(kept, 3);
    const Vec of_new = total * (one - update) * (one - new_state * new_state);
    const Vec of_update = total * (load(before, 0) - new_state) * update * (one - update);
    const Vec of_reset = of_new * from_hidden * reset * (one - reset);
    for (float* row : {grad_gates, grad_products}) {
      of_reset.store(row + j, n);
      of_update.store(row + size + j, n);
    }
    of_new.store(grad_gates + 2 * size + j, n);
    (of_new * reset).store(grad_products + 2 * size + j, n);
    (total * update).store(carried + j, n);
  }
}

}  // namespace

extern "C" void forward(const float* gates, const float* hidden, const bool* resets, const float* weight,
                        const float* bias, float* states, float* kept, int64_t groups, int64_t steps, int64_t rows,
                        int64_t size, int64_t threads) {
  const int64_t width = round_up(3 * size, PANEL);
  std::vector<Floats> panels, biases(groups, Floats(width));
  for (int64_t group = 0; group < groups; ++group) {
    panels.push_back(in_panels(weight + group * 3 * size * size, size, 3 * size, 1, size));
    std::copy_n(bias + group * 3 * size, 3 * size, biases[group].data());
  }
  in_blocks(groups, rows, threads, [&](int64_t group, int64_t first, int64_t n_rows) {
    Floats state(n_rows * size), products(n_rows * width);
    std::copy_n(hidden + (group * rows + first) * size, n_rows * size, state.data());
    for (int64_t step = 0; step < steps; ++step) {
      const int64_t place = (group * steps + step) * rows + first;
      for (int64_t r = 0; r < n_rows; ++r) {
        if (step > 0 && resets[place + r]) std::fill_n(state.data() + r * size, size, 0.0f);
      }
      product(n_rows, state.data(), size, panels[group], biases[group].data(), 0, products.data(), width);
      for (int64_t r = 0; r < n_rows; ++r) {
        step_forward(gates + (place + r) * 3 * size, products.data() + r * width, state.data() + r * size,
                     kept == nullptr ? nullptr : kept + (place + r) * 4 * size, size);
      }
      std::copy_n(state.data(), n_rows * size, states + place * size);
    }
  });
}

extern "C" void backward(const float* grad, const float* hidden, const bool* resets, const float* weight,
                         const float* states, const float* kept, float* grad_gates, float* grad_products,
                         float* grad_hidden, int64_t groups, int64_t steps, int64_t rows, int64_t size,
                         int64_t threads) {
  const int64_t width = round_up(size, PANEL);
  const Floats zeros(size);
  std::vector<Floats> panels;
  for (int64_t group = 0; group < groups; ++group) {
    panels.push_back(in_panels(weight + group * 3 * size * size, 3 * size, size, size, 1));
  }
  in_blocks(groups, rows, threads, [&](int64_t group, int64_t first, int64_t n_rows) {
    Floats carried(n_rows * width);
    for (int64_t step = steps - 1; step >= 0; --step) {
      const int64_t place = (group * steps + step) * rows + first;
      const float* before = step > 0 ? states + (place - rows) * size : hidden + (group * rows + first) * size;
      for (int64_t r = 0; r < n_rows; ++r) {
        const int64_t row = place + r;
        const float* state = step > 0 && resets[row] ? zeros.data() : before + r * size;
        step_backward(grad + row * size, state, kept + row * 4 * size, carried.data() + r * width,
                      grad_gates + row * 3 * size, grad_products + row * 3 * size, size);
      }
      product(n_rows, grad_products + place * 3 * size, 3 * size, panels[group], carried.data(), width, carried.data(),
              width);
      for (int64_t r = 0; r < n_rows; ++r) {
        if (step > 0 && resets[place + r]) std::fill_n(carried.data() + r * width, width, 0.0f);
      }
    }
    for (int64_t r = 0; r < n_rows; ++r) {
      std::copy_n(carried.data() + r * width, size, grad_hidden + (group * rows + first + r) * size);
    }
  });
}
