// SPDX-License-Identifier: Apache-2.0
// A Status that nobody looks at: a warning, which -Werror makes an error.
// expect: nodiscard
#include "lightseq/core/status.hpp"

lightseq::Status call();
bool use() {
#ifdef LIGHTSEQ_FAULT
  call();
  return true;
#else
  return call().ok();
#endif
}
