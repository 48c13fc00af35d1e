# The values that the catalogue of extensions reads from the configured extension.
foreach(name IN ITEMS HOMEPAGE CATEGORY CONTRIBUTORS DESCRIPTION ICONURL SCREENSHOTURLS DEPENDS)
  if(NOT EXTENSION_${name})
    message(FATAL_ERROR "EXTENSION_${name} is not set")
  endif()
  message(STATUS "EXTENSION_${name}: ${EXTENSION_${name}}")
endforeach()
