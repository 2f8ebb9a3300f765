# SPDX-License-Identifier: Apache-2.0
# Fails, naming the file, where a README links to a file that does not exist:
#   cmake -D ROOT=<folder that holds README.md> -P CheckLinks.cmake
cmake_minimum_required(VERSION 3.25)

set(faults "")
set(count 0)
file(GLOB_RECURSE readmes RELATIVE ${ROOT} ${ROOT}/bench/README.md ${ROOT}/examples/README.md
     ${ROOT}/include/README.md ${ROOT}/tests/README.md)
foreach(readme IN ITEMS README.md LISTS readmes)
  file(READ ${ROOT}/${readme} text)
  string(REGEX REPLACE "[;\\]" " " text "${text}")
  string(REPLACE "](" "\nLINK " text "${text}")
  string(REGEX REPLACE "[][]" " " text "${text}")  # CMake's lists would trip over them
  string(REPLACE "\n" ";" text "${text}")
  cmake_path(GET readme PARENT_PATH here)
  foreach(line IN LISTS text)
    if(line MATCHES "^LINK https?:" OR NOT line MATCHES "^LINK ([^)#]+)")
      continue()
    endif()
    math(EXPR count "${count} + 1")
    set(path ${CMAKE_MATCH_1})
    if(NOT EXISTS "${ROOT}/${here}/${path}")
      string(APPEND faults "\n  ${readme}: there is no ${path}")
    endif()
  endforeach()
endforeach()
if(faults OR count EQUAL 0)
  message(FATAL_ERROR "links lead nowhere:${faults}")
endif()
message(STATUS "${count} links lead to files")
