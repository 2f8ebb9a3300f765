# SPDX-License-Identifier: Apache-2.0
# The commands, links and C++ of every README. tests/readme/blocks.sh says which command is tested how; the first
# C++ of README.md is a program that a command there compiles, the second is for GPUs and is compiled here, by nvcc.
function(lightseq_readme_tests)
  add_test(NAME readme/links
           COMMAND ${CMAKE_COMMAND} -D ROOT=${PROJECT_SOURCE_DIR} -P ${PROJECT_SOURCE_DIR}/cmake/CheckLinks.cmake)
  if(LIGHTSEQ_EXAMPLES AND LIGHTSEQ_BENCH)
    file(GLOB_RECURSE readmes RELATIVE ${PROJECT_SOURCE_DIR} ${PROJECT_SOURCE_DIR}/include/README.md)
    foreach(readme IN ITEMS README.md bench/README.md examples/README.md tests/README.md LISTS readmes)
      add_test(NAME readme/${readme} COMMAND ${PROJECT_SOURCE_DIR}/tests/readme/run.sh ${PROJECT_SOURCE_DIR}
                                             ${PROJECT_BINARY_DIR} ${readme})
      set_tests_properties(readme/${readme} PROPERTIES TIMEOUT 900 ENVIRONMENT "${mpi_environment}")
    endforeach()
  endif()
  if(LIGHTSEQ_CUDA AND TARGET lightseq::nccl)
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/README.md)
    file(READ ${PROJECT_SOURCE_DIR}/README.md text)
    string(REGEX REPLACE "^.*```cpp\n([^`]*)```.*$" "\\1" code "${text}")  # the last block
    file(CONFIGURE OUTPUT readme/over_nccl.cu CONTENT "${code}" @ONLY)
    add_library(readme_over_nccl OBJECT ${CMAKE_CURRENT_BINARY_DIR}/readme/over_nccl.cu)
    target_link_libraries(readme_over_nccl PRIVATE lightseq::nccl)
    add_dependencies(cuda readme_over_nccl)
  endif()
endfunction()
