# SPDX-License-Identifier: Apache-2.0
# What `cmake --install` copies: the headers, and a package for find_package(lightseq).
include(CMakePackageConfigHelpers)
include(GNUInstallDirs)

set(package_dir ${CMAKE_INSTALL_DATADIR}/cmake/lightseq)
install(TARGETS lightseq EXPORT lightseq FILE_SET HEADERS)
install(EXPORT lightseq NAMESPACE lightseq:: FILE lightseqTargets.cmake DESTINATION ${package_dir})
configure_package_config_file(${CMAKE_CURRENT_LIST_DIR}/lightseqConfig.cmake.in
                              ${PROJECT_BINARY_DIR}/lightseqConfig.cmake INSTALL_DESTINATION ${package_dir})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/lightseqConfigVersion.cmake
                                 COMPATIBILITY SameMinorVersion ARCH_INDEPENDENT)
install(FILES ${PROJECT_BINARY_DIR}/lightseqConfig.cmake ${PROJECT_BINARY_DIR}/lightseqConfigVersion.cmake
              ${CMAKE_CURRENT_LIST_DIR}/LightseqMpi.cmake ${CMAKE_CURRENT_LIST_DIR}/LightseqCuda.cmake
              ${CMAKE_CURRENT_LIST_DIR}/LightseqNccl.cmake ${CMAKE_CURRENT_LIST_DIR}/FindNCCL.cmake
        DESTINATION ${package_dir})
