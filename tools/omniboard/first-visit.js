// Omniboard begins with a column for each of a run's keys, some hundred, and with all curves in one plot. At the first
// visit, and after "Reset Cache", this leaves what says most; "Show/Hide Columns" and "Metrics to plot" have the rest.
(function () {
  'use strict'
  const WIDTHS = {
    _id: 60,
    status: 110,
    stage: 80,
    c_name: 110,
    c_limits: 80,
    c_seed: 100,
    'teacher run': 100,
    'buffer run': 90,
    return: 160,
    'win rate': 100,
    retention: 160,
    agreement: 160,
    tags: 340,
    duration: 80,
    start_time: 160
  }
  const CURVES = ['return_mean', 'test_return_mean']
  const SHOWN = Object.keys(WIDTHS)
  // As Omniboard names them.
  const PLOTS = 'undefined|MetricsPlotView|default'
  const TABLE = '|RunsTable|1'
  const DONE = 'kd-marl|first visit'

  const timer = setInterval(() => {
    if (localStorage.getItem(DONE)) return clearInterval(timer)
    const name = Object.keys(localStorage).find(key => key.endsWith(TABLE))
    const state = name && JSON.parse(localStorage.getItem(name))
    if (!state || !state.dropdownOptions || state.dropdownOptions.length === 0) return
    const rank = option => (SHOWN.includes(option.value) ? SHOWN.indexOf(option.value) : SHOWN.length)
    state.dropdownOptions = state.dropdownOptions
      .map(option => ({ ...option, selected: SHOWN.includes(option.value) }))
      .sort((one, other) => rank(one) - rank(other))
    state.columnOrder = state.dropdownOptions.filter(option => option.selected).map(option => option.value)
    state.columnWidths = { ...state.columnWidths, ...WIDTHS }
    const curves = CURVES.map(value => ({ label: value, value, selected: true }))
    localStorage.setItem(PLOTS, JSON.stringify({ metricNameOptions: curves }))
    localStorage.setItem(name, JSON.stringify(state))
    localStorage.setItem(DONE, '1')
    location.reload()
  }, 100)
})()
