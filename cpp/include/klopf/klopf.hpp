#pragma once
// The engine of networks that must keep learning.
#include "klopf/error.hpp"
#include "klopf/learner.hpp"
#include "klopf/network.hpp"
#include "klopf/ppo.hpp"
#include "klopf/stream.hpp"
#include "klopf/synthetic.hpp"
#include "klopf/threads.hpp"
#include "klopf/traces.hpp"
#include "klopf/version.hpp"
