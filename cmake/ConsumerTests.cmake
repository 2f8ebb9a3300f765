# SPDX-License-Identifier: Apache-2.0
# tests/consumer, configured, built and run as a project of its own, in each way to use lightseq.
function(lightseq_consumer_tests)
  set(scratch ${CMAKE_CURRENT_BINARY_DIR}/consumer)
  add_test(NAME consumer/install
           COMMAND ${CMAKE_COMMAND} --install ${PROJECT_BINARY_DIR} --prefix ${scratch}/prefix)
  set_tests_properties(consumer/install PROPERTIES FIXTURES_SETUP installed)
  foreach(way IN ITEMS find_package add_subdirectory FetchContent)
    add_test(NAME consumer/${way}
             COMMAND ${CMAKE_CTEST_COMMAND}
                     --build-and-test ${CMAKE_CURRENT_SOURCE_DIR}/consumer ${scratch}/${way}
                     --build-generator ${CMAKE_GENERATOR}
                     --build-options -DCONSUME=${way} -DLIGHTSEQ_SOURCE=${PROJECT_SOURCE_DIR}
                                     -DCMAKE_PREFIX_PATH=${scratch}/prefix
                                     -DCMAKE_CXX_COMPILER=${CMAKE_CXX_COMPILER}
                     --test-command consumer)
  endforeach()
  set_tests_properties(consumer/find_package PROPERTIES FIXTURES_REQUIRED installed)
  if(TARGET lightseq::mpi)
    foreach(way IN ITEMS find_package add_subdirectory)
      add_test(NAME consumer/${way}_mpi
               COMMAND ${CMAKE_CTEST_COMMAND}
                       --build-and-test ${CMAKE_CURRENT_SOURCE_DIR}/consumer ${scratch}/${way}_mpi
                       --build-generator ${CMAKE_GENERATOR}
                       --build-options -DCONSUME=${way} -DCONSUME_MPI=ON -DLIGHTSEQ_SOURCE=${PROJECT_SOURCE_DIR}
                                       -DCMAKE_PREFIX_PATH=${scratch}/prefix
                                       -DCMAKE_CXX_COMPILER=${CMAKE_CXX_COMPILER}
                       --test-command consumer)
    endforeach()
    set_tests_properties(consumer/find_package_mpi PROPERTIES FIXTURES_REQUIRED installed)
  endif()
endfunction()
