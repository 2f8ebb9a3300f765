// SPDX-License-Identifier: Apache-2.0
#pragma once

/// What a library found.
struct Found {
  int expected = 0;            ///< the vector width, or the architecture, that it is compiled for
  int width = 0;               ///< the one that its code has
  void const* code = nullptr;  ///< where its calls go to
  double error = 1;            ///< of its results, relative to 1 for float
  bool skipped = false;        ///< there is no GPU
};
