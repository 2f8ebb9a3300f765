# SPDX-License-Identifier: Apache-2.0
# lightseq::cuda: lightseq, the CUDA runtime and C++20 for nvcc, for lightseq/lightseq.cuh. Undefined where no CUDA
# toolkit is found; else FindNCCL looks in its folders. An error where CUDA is compiled for an architecture on which
# no kernel works.
block(PROPAGATE CUDAToolkit_FOUND CUDAToolkit_INCLUDE_DIRS CUDAToolkit_LIBRARY_DIR)
  set(CMAKE_FIND_PACKAGE_TARGETS_GLOBAL TRUE)
  find_package(CUDAToolkit QUIET)
endblock()
if(TARGET CUDA::cudart AND NOT TARGET lightseq::cuda)
  add_library(lightseq::cuda INTERFACE IMPORTED GLOBAL)
  target_link_libraries(lightseq::cuda INTERFACE lightseq::lightseq CUDA::cudart)
  # CMake 3.25 knows no C++20 for nvcc and passes no flag for it.
  target_compile_options(lightseq::cuda INTERFACE $<$<COMPILE_LANGUAGE:CUDA>:-std=c++20>)
endif()

block()
  # Where CUDA is not enabled nothing is compiled by nvcc; with OFF each target brings its own.
  set(architectures "")
  if(CMAKE_CUDA_COMPILER AND CMAKE_CUDA_ARCHITECTURES)
    set(architectures ${CMAKE_CUDA_ARCHITECTURES})
    if(architectures STREQUAL "native")
      set(architectures ${CMAKE_CUDA_ARCHITECTURES_NATIVE})
    endif()
  endif()
  set(advice "use 90a for Hopper, 80 and above for Cuda<Ampere>, or both: -DCMAKE_CUDA_ARCHITECTURES=\"80;90a\"")
  foreach(architecture IN LISTS architectures)
    string(REGEX MATCH "^[0-9]*" number "${architecture}")
    if(architecture MATCHES "^90(-real|-virtual)?$")
      message(FATAL_ERROR "lightseq: CMAKE_CUDA_ARCHITECTURES has ${architecture}, which lacks the instructions of "
                          "the Hopper kernels; 90a has them: ${advice}")
    elseif(architecture MATCHES "^all" OR (number AND number LESS 80))
      message(FATAL_ERROR "lightseq: CMAKE_CUDA_ARCHITECTURES has ${architecture}, but the kernels need compute "
                          "capability 8.0: ${advice}")
    endif()
  endforeach()
endblock()
