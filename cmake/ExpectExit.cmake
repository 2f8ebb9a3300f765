# SPDX-License-Identifier: Apache-2.0
# Runs a program and fails unless it exits with CODE and its error output holds TEXT:
#   cmake -D CODE=2 -D TEXT=... -P ExpectExit.cmake -- PROGRAM [ARGUMENT...]
cmake_minimum_required(VERSION 3.25)

set(command "")
set(found OFF)
math(EXPR last "${CMAKE_ARGC} - 1")
foreach(i RANGE ${last})
  if(found)
    list(APPEND command "${CMAKE_ARGV${i}}")
  elseif(CMAKE_ARGV${i} STREQUAL "--")
    set(found ON)
  endif()
endforeach()
execute_process(COMMAND ${command} RESULT_VARIABLE code OUTPUT_QUIET ERROR_VARIABLE error)
string(FIND "${error}" "${TEXT}" at)
if(NOT code STREQUAL "${CODE}" OR at EQUAL -1)
  message(FATAL_ERROR "exit code ${code}, not ${CODE}, or no '${TEXT}' in:\n${error}")
endif()
