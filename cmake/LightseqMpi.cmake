# SPDX-License-Identifier: Apache-2.0
# lightseq::mpi: lightseq and an MPI library, for lightseq/transport/mpi.hpp. Undefined where no MPI is found.
block(PROPAGATE MPI_CXX_FOUND)
  set(CMAKE_FIND_PACKAGE_TARGETS_GLOBAL TRUE)
  set(MPI_CXX_SKIP_MPICXX TRUE)  # the C interface is enough
  find_package(MPI QUIET COMPONENTS CXX)
endblock()
if(MPI_CXX_FOUND AND NOT TARGET lightseq::mpi)
  add_library(lightseq::mpi INTERFACE IMPORTED GLOBAL)
  target_link_libraries(lightseq::mpi INTERFACE lightseq::lightseq MPI::MPI_CXX)
endif()
