// A GRU along time, forward and backward, for groups of rows that have weights of their own.
//
// A thread takes a few rows of a group through all steps: rows never meet, so that threads wait for each other only at the
// end, and a row's numbers depend neither on the number of threads nor on the rows beside it. All tensors are dense:
// gates [groups, steps, rows, 3 * size] (reset, update, new), hidden [groups, rows, size], resets [groups, steps, rows],
// weight [groups, 3 * size, size], bias [groups, 3 * size], states [groups, steps, rows, size], and what the forward pass
// keeps for the backward one, kept [groups, steps, rows, 4 * size]: reset, update, new, and what `new` has of the state.

#include <ATen/cpu/vec/vec.h>

#include <algorithm>
#include <cstdint>
#include <vector>

namespace {

using at::vec::Vectorized;

template <typename T>
constexpr int64_t LANES = Vectorized<T>::size();
template <typename T>
constexpr int64_t PANEL = 2 * LANES<T>;
// Sums of so many rows and one panel stay in registers: there are 32 with AVX-512, else at least 16.
template <typename T>
constexpr int64_t MOST_ROWS = LANES<T> * sizeof(T) == 64 ? 12 : 6;

int64_t round_up(int64_t x, int64_t multiple) { return (x + multiple - 1) / multiple * multiple; }

// The matrix [depth, width] that stands at `source` with these strides, in panels [depth, PANEL], padded with zeros.
template <typename T>
std::vector<T> in_panels(const T* source, int64_t depth, int64_t width, int64_t depth_stride, int64_t width_stride) {
  std::vector<T> panels(depth * round_up(width, PANEL<T>));
  for (int64_t column = 0; column < width; ++column) {
    T* panel = panels.data() + column / PANEL<T> * PANEL<T> * depth + column % PANEL<T>;
    for (int64_t k = 0; k < depth; ++k) panel[k * PANEL<T>] = source[k * depth_stride + column * width_stride];
  }
  return panels;
}

// out [ROWS, PANEL] = start + x [ROWS, depth] times one panel.
template <typename T, int ROWS>
inline void times_panel(const T* x, int64_t x_stride, const T* panel, int64_t depth, const T* start,
                        int64_t start_stride, T* out, int64_t out_stride) {
  // The compilers' own vectors: arrays of ATen's would not stay in registers.
  typedef T Vec __attribute__((vector_size(LANES<T> * sizeof(T)), aligned(sizeof(T)), may_alias));
  Vec left[ROWS], right[ROWS];
  for (int r = 0; r < ROWS; ++r) {
    left[r] = *(const Vec*)(start + r * start_stride);
    right[r] = *(const Vec*)(start + r * start_stride + LANES<T>);
  }
  for (int64_t k = 0; k < depth; ++k) {
    const Vec weight_left = *(const Vec*)(panel + k * PANEL<T>), weight_right = *(const Vec*)(panel + k * PANEL<T> + LANES<T>);
    for (int r = 0; r < ROWS; ++r) {
      left[r] += x[r * x_stride + k] * weight_left;
      right[r] += x[r * x_stride + k] * weight_right;
    }
  }
  for (int r = 0; r < ROWS; ++r) {
    *(Vec*)(out + r * out_stride) = left[r];
    *(Vec*)(out + r * out_stride + LANES<T>) = right[r];
  }
}

// out [rows, width] = start + x [rows, depth] times the matrix in `panels`.
template <typename T, int ROWS = MOST_ROWS<T>>
void product(int64_t rows, const T* x, int64_t depth, const std::vector<T>& panels, const T* start,
             int64_t start_stride, T* out, int64_t out_stride) {
  if constexpr (ROWS > 1) {
    if (rows < ROWS) return product<T, ROWS - 1>(rows, x, depth, panels, start, start_stride, out, out_stride);
  }
  for (int64_t column = 0; column < out_stride; column += PANEL<T>) {
    const T* panel = panels.data() + column * depth;
    times_panel<T, ROWS>(x, depth, panel, depth, start + column, start_stride, out + column, out_stride);
  }
}

template <typename T>
Vectorized<T> sigmoid(Vectorized<T> x) {
  return Vectorized<T>(1) / (Vectorized<T>(1) + x.neg().exp());
}

template <typename T>
Vectorized<T> tanh(Vectorized<T> x) {
  return Vectorized<T>(2) / (Vectorized<T>(1) + (x * Vectorized<T>(-2)).exp()) - Vectorized<T>(1);
}

// Calls `rows_of(group, first row, number of rows)` for all rows, in parallel.
template <typename T, typename Function>
void in_blocks(int64_t groups, int64_t rows, int64_t threads, const Function& rows_of) {
  const int64_t least = (rows + MOST_ROWS<T> - 1) / MOST_ROWS<T>;
  const int64_t blocks = std::min(rows, groups == 1 ? round_up(least, threads) : least);
#pragma omp parallel for collapse(2) num_threads(threads) schedule(static)
  for (int64_t group = 0; group < groups; ++group) {
    for (int64_t block = 0; block < blocks; ++block) {
      const int64_t first = rows * block / blocks;
      rows_of(group, first, rows * (block + 1) / blocks - first);
    }
  }
}

template <typename T>
void forward(const T* gates, const T* hidden, const bool* resets, const T* weight, const T* bias, T* states, T* kept,
             int64_t groups, int64_t steps, int64_t rows, int64_t size, int64_t threads) {
  using Vec = Vectorized<T>;
  const int64_t width = round_up(3 * size, PANEL<T>);
  std::vector<std::vector<T>> panels(groups);
  std::vector<T> padded_bias(groups * width);
  for (int64_t group = 0; group < groups; ++group) {
    panels[group] = in_panels(weight + group * 3 * size * size, size, 3 * size, 1, size);
    std::copy_n(bias + group * 3 * size, 3 * size, padded_bias.data() + group * width);
  }
  in_blocks<T>(groups, rows, threads, [&](int64_t group, int64_t first, int64_t n_rows) {
    std::vector<T> before(n_rows * size), products(n_rows * width);
    std::copy_n(hidden + (group * rows + first) * size, n_rows * size, before.data());
    for (int64_t step = 0; step < steps; ++step) {
      const int64_t place = (group * steps + step) * rows + first;
      for (int64_t r = 0; r < n_rows; ++r) {
        if (step > 0 && resets[place + r]) std::fill_n(before.data() + r * size, size, T(0));
      }
      product<T>(n_rows, before.data(), size, panels[group], padded_bias.data() + group * width, 0, products.data(), width);
      for (int64_t r = 0; r < n_rows; ++r) {
        const T *from_input = gates + (place + r) * 3 * size, *from_hidden = products.data() + r * width;
        T *state = before.data() + r * size, *keep = kept ? kept + (place + r) * 4 * size : nullptr;
        for (int64_t j = 0; j < size; j += LANES<T>) {
          const int64_t n = std::min(LANES<T>, size - j);
          const auto gate = [&](int64_t index) { return Vec::loadu(from_input + index * size + j, n); };
          const auto of_hidden = [&](int64_t index) { return Vec::loadu(from_hidden + index * size + j, n); };
          const Vec reset = sigmoid<T>(gate(0) + of_hidden(0)), update = sigmoid<T>(gate(1) + of_hidden(1));
          const Vec hidden_new = of_hidden(2), new_state = tanh<T>(gate(2) + reset * hidden_new);
          const Vec next = new_state + update * (Vec::loadu(state + j, n) - new_state);
          next.store(state + j, n);
          if (keep) {
            reset.store(keep + j, n);
            update.store(keep + size + j, n);
            new_state.store(keep + 2 * size + j, n);
            hidden_new.store(keep + 3 * size + j, n);
          }
        }
      }
      std::copy_n(before.data(), n_rows * size, states + place * size);
    }
  });
}

template <typename T>
void backward(const T* grad, const T* hidden, const bool* resets, const T* weight, const T* states, const T* kept,
              T* grad_gates, T* grad_hidden_gates, T* grad_hidden, int64_t groups, int64_t steps, int64_t rows,
              int64_t size, int64_t threads) {
  using Vec = Vectorized<T>;
  const int64_t width = round_up(size, PANEL<T>);
  std::vector<std::vector<T>> panels(groups);
  for (int64_t group = 0; group < groups; ++group) {
    panels[group] = in_panels(weight + group * 3 * size * size, 3 * size, size, size, 1);
  }
  const std::vector<T> zeros(size);
  in_blocks<T>(groups, rows, threads, [&](int64_t group, int64_t first, int64_t n_rows) {
    std::vector<T> carry(n_rows * width);  // the gradient of the state after the step, from the steps behind it
    for (int64_t step = steps - 1; step >= 0; --step) {
      const int64_t place = (group * steps + step) * rows + first;
      for (int64_t r = 0; r < n_rows; ++r) {
        const T* before = step > 0 ? states + (place - rows + r) * size : hidden + (group * rows + first + r) * size;
        if (step > 0 && resets[place + r]) before = zeros.data();
        const T *of_state = grad + (place + r) * size, *keep = kept + (place + r) * 4 * size;
        T *of_gates = grad_gates + (place + r) * 3 * size, *of_hidden_gates = grad_hidden_gates + (place + r) * 3 * size;
        T* carried = carry.data() + r * width;
        for (int64_t j = 0; j < size; j += LANES<T>) {
          const int64_t n = std::min(LANES<T>, size - j);
          const Vec one(1), reset = Vec::loadu(keep + j, n), update = Vec::loadu(keep + size + j, n);
          const Vec new_state = Vec::loadu(keep + 2 * size + j, n), hidden_new = Vec::loadu(keep + 3 * size + j, n);
          const Vec of_next = Vec::loadu(of_state + j, n) + Vec::loadu(carried + j, n);
          const Vec of_update = of_next * (Vec::loadu(before + j, n) - new_state) * update * (one - update);
          const Vec of_new = of_next * (one - update) * (one - new_state * new_state);
          const Vec of_reset = of_new * hidden_new * reset * (one - reset);
          of_reset.store(of_gates + j, n);
          of_update.store(of_gates + size + j, n);
          of_new.store(of_gates + 2 * size + j, n);
          of_reset.store(of_hidden_gates + j, n);
          of_update.store(of_hidden_gates + size + j, n);
          (of_new * reset).store(of_hidden_gates + 2 * size + j, n);
          (of_next * update).store(carried + j, n);
        }
      }
      product<T>(n_rows, grad_hidden_gates + place * 3 * size, 3 * size, panels[group], carry.data(), width, carry.data(), width);
      for (int64_t r = 0; r < n_rows; ++r) {
        if (step > 0 && resets[place + r]) std::fill_n(carry.data() + r * width, width, T(0));
      }
    }
    for (int64_t r = 0; r < n_rows; ++r) {
      std::copy_n(carry.data() + r * width, size, grad_hidden + (group * rows + first + r) * size);
    }
  });
}

}  // namespace

#define KERNELS(T)                                                                                                    \
  extern "C" void forward_##T(const T* gates, const T* hidden, const bool* resets, const T* weight, const T* bias,    \
                              T* states, T* kept, int64_t groups, int64_t steps, int64_t rows, int64_t size,          \
                              int64_t threads) {                                                                      \
    forward<T>(gates, hidden, resets, weight, bias, states, kept, groups, steps, rows, size, threads);                \
  }                                                                                                                   \
  extern "C" void backward_##T(const T* grad, const T* hidden, const bool* resets, const T* weight, const T* states,  \
                               const T* kept, T* grad_gates, T* grad_hidden_gates, T* grad_hidden, int64_t groups,    \
                               int64_t steps, int64_t rows, int64_t size, int64_t threads) {                          \
    backward<T>(grad, hidden, resets, weight, states, kept, grad_gates, grad_hidden_gates, grad_hidden, groups,       \
                steps, rows, size, threads);                                                                          \
  }

KERNELS(float)
KERNELS(double)
