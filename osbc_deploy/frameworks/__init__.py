"""Networks of torch frameworks, read by what their forward computes, and proven against it.

A framework is a folder: the arithmetic of its neurons (``neurons.py``) beside what reads its
modules (``reading.py``), with a contract (:mod:`.plugin`) and its facts as data
(:mod:`.framework`). What all of them share, in the order of the work:

- a forward is run and its calls are noted (:mod:`.tracing`); :mod:`.flow` finds which axes are time
  and in which step a signal belongs (:mod:`.signals`, :mod:`.moves`, :mod:`.turns`,
  :mod:`.layout`, :mod:`.repeats`);
- :mod:`.builder` makes a graph of that (:mod:`.draft`) by the tables of :mod:`.layers`,
  :mod:`.functions` and :mod:`.logic`, with :mod:`.gating`, :mod:`.joining`, :mod:`.padding`,
  :mod:`.averages`, :mod:`.folding`, and :mod:`.transposed`, :mod:`.as_matrix` and :mod:`.phases`
  for maps that lie otherwise; what it cannot take is refused with :mod:`.reasons`;
- :mod:`.assemble` makes the graph a network: from every population back to the spikes it receives
  (:mod:`.walk`, :mod:`.order`), linear operations in between composed into one
  (:mod:`.operations`, :mod:`.terms`, :mod:`.compose`, :mod:`.convolved`);
- :mod:`.reading` does all that, and finds the answer (:mod:`.answering`, :mod:`.answers`,
  :mod:`.leaking`);
- :mod:`.proof` runs both side by side (:mod:`.calling`, :mod:`.recording`, :mod:`.comparing`),
  and tells rounding from error (:mod:`.rounding`); weights are checked by :mod:`.finite`, and what
  its own framework cannot run is named by :mod:`.failing`.

What the user may ask to be exchanged before is :mod:`.substitution`, what stays on the host
:mod:`.hosting`.
"""
