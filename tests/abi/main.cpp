// SPDX-License-Identifier: Apache-2.0
// main LIBRARY...: loads all of them for everybody to see, then asks each for its results. Each must run its
// own code. Exits with 77 where there is no GPU for them.
#include <dlfcn.h>

#include <cstdio>
#include <cstring>
#include <vector>

#include "abi/library.hpp"

int main(int argc, char** argv) {
  std::vector<Found (*)()> finds;
  for (int i = 1; i < argc; ++i) {
    void* const library = dlopen(argv[i], RTLD_NOW | RTLD_GLOBAL);
    if (library == nullptr) {
      std::printf("%s\n", dlerror());
      return 1;
    }
    finds.push_back(reinterpret_cast<Found (*)()>(dlsym(library, "find")));
  }
  bool right = finds.size() > 1, skipped = false;
  for (int i = 1; i < argc; ++i) {
    Found const found = finds[static_cast<std::size_t>(i - 1)]();
    Dl_info at = {};
    bool const own = dladdr(found.code, &at) != 0 && std::strcmp(at.dli_fname, argv[i]) == 0;
    std::printf("%s: %d of %d, error %g, runs %s\n", argv[i], found.width, found.expected, found.error,
                at.dli_fname);
    skipped = skipped || found.skipped;
    right = right && own && (found.skipped || (found.width == found.expected && found.error < 1e-5));
  }
  if (!right) return 1;
  return skipped ? 77 : 0;
}
