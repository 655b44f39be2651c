# find_package(klopf CONFIG) reads this: it defines the target klopf::klopf.
include(CMakeFindDependencyMacro)
find_dependency(Threads)
include("${CMAKE_CURRENT_LIST_DIR}/klopf-targets.cmake")
