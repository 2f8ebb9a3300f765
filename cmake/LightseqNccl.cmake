# SPDX-License-Identifier: Apache-2.0
# lightseq::nccl: lightseq, NCCL and the CUDA runtime, for lightseq/transport/nccl.hpp. Undefined where one of
# them is not found.
block(PROPAGATE NCCL_FOUND)
  set(CMAKE_FIND_PACKAGE_TARGETS_GLOBAL TRUE)
  list(APPEND CMAKE_MODULE_PATH ${CMAKE_CURRENT_LIST_DIR})
  find_package(CUDAToolkit QUIET)
  find_package(NCCL QUIET)
  if(NCCL_FOUND AND TARGET CUDA::cudart AND NOT TARGET lightseq::nccl)
    add_library(lightseq::nccl INTERFACE IMPORTED GLOBAL)
    target_link_libraries(lightseq::nccl INTERFACE lightseq::lightseq NCCL::NCCL CUDA::cudart)
  endif()
endblock()
