/* empty for now */
#include "@P@_layout.h"
typedef int @P@_no_telemetry;
