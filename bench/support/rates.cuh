// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cuda_runtime.h>

#include <algorithm>
#include <chrono>
#include <thread>
#include <vector>

#include "bench/support/cuda.cuh"
#include "lightseq/core/event.cuh"

namespace lightseq::bench {

/// Rates of calls that are enqueued on the default stream, of which each does so many TFLOP, in TFLOP/s. At
/// least `least` are timed together. The card's power limit makes the difference between a burst and what it
/// sustains: its control swings with a period of about a second, and shorter times show its phase.
class Rates {
 public:
  Rates(double work, int least) : work_(work), least_(least) {}

  /// Of that many calls back to back.
  template <class F>
  double rate(F&& f, int calls) const {
    check(cudaEventRecord(events_[0].get()));
    for (int i = 0; i < calls; ++i) f();
    check(cudaEventRecord(events_[1].get()));
    check(cudaDeviceSynchronize());
    float milliseconds = 0;
    check(cudaEventElapsedTime(&milliseconds, events_[0].get(), events_[1].get()));
    return work_ * calls / (1e-3 * milliseconds);
  }

  /// Of some 15 ms of work after 350 ms of idling: the median of three.
  template <class F>
  double burst(F&& f) const {
    std::vector<double> bursts;
    for (int i = 0; i < 3; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(350));
      rate(f, 1);
      bursts.push_back(rate(f, calls(0.015)));
    }
    std::sort(bursts.begin(), bursts.end());
    return bursts[1];
  }

  /// Of 1 s of work after 0.7 s of the same work.
  template <class F>
  double sustained(F&& f) const {
    double const first = rate(f, calls(0.015));
    rate(f, calls(0.7, first));
    return rate(f, calls(1, first));
  }

 private:
  int calls(double seconds, double rate = 600) const {
    return std::max(least_, static_cast<int>(seconds * rate / work_));
  }

  std::vector<Event> events_ = make_timers(2);
  double work_;
  int least_;
};

}  // namespace lightseq::bench
