# SPDX-License-Identifier: Apache-2.0
# The README's C++, built as it stands there: the first block is a program, which runs; the second is for GPUs.
# And the links of every README.
function(lightseq_readme_tests)
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/README.md)
  file(READ ${PROJECT_SOURCE_DIR}/README.md text)
  foreach(file IN ITEMS first_program.cpp over_nccl.cu)
    string(REGEX MATCH "```cpp\n[^`]*```" block "${text}")
    if(NOT block)
      message(FATAL_ERROR "README.md has no C++ for ${file}")
    endif()
    string(REPLACE "${block}" "" text "${text}")
    string(REGEX REPLACE "^```cpp\n|```$" "" code "${block}")
    file(CONFIGURE OUTPUT readme/${file} CONTENT "${code}" @ONLY)
  endforeach()

  set(folder ${CMAKE_CURRENT_BINARY_DIR}/readme)
  add_executable(readme_first_program ${folder}/first_program.cpp)
  target_link_libraries(readme_first_program PRIVATE lightseq::lightseq)
  add_test(NAME readme/first_program COMMAND readme_first_program)
  set_tests_properties(readme/first_program PROPERTIES PASS_REGULAR_EXPRESSION "rank 7: ok, o.0. = 0.5\n")
  add_test(NAME readme/links
           COMMAND ${CMAKE_COMMAND} -D ROOT=${PROJECT_SOURCE_DIR} -P ${PROJECT_SOURCE_DIR}/cmake/CheckLinks.cmake)
  if(LIGHTSEQ_CUDA AND TARGET lightseq::nccl)
    add_library(readme_over_nccl OBJECT ${folder}/over_nccl.cu)
    target_link_libraries(readme_over_nccl PRIVATE lightseq::nccl)
    add_dependencies(cuda readme_over_nccl)
  endif()
endfunction()
