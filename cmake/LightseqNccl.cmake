# SPDX-License-Identifier: Apache-2.0
# lightseq::nccl: lightseq::cuda and NCCL, for lightseq/transport/nccl.cuh. Undefined where one of them is not
# found.
include(${CMAKE_CURRENT_LIST_DIR}/LightseqCuda.cmake)
block(PROPAGATE NCCL_FOUND)
  set(CMAKE_FIND_PACKAGE_TARGETS_GLOBAL TRUE)
  list(APPEND CMAKE_MODULE_PATH ${CMAKE_CURRENT_LIST_DIR})
  find_package(NCCL QUIET)
  if(NCCL_FOUND AND TARGET lightseq::cuda AND NOT TARGET lightseq::nccl)
    add_library(lightseq::nccl INTERFACE IMPORTED GLOBAL)
    target_link_libraries(lightseq::nccl INTERFACE lightseq::cuda NCCL::NCCL)
  endif()
endblock()
