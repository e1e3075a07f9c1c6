export const en = {
  app: "ContentHub Scheduler",
  nav: { overview: "Overview", tasks: "Tasks", calendar: "Calendar", executions: "Executions", executors: "Executors", system: "System", label: "Main", skip: "Skip to content", open: "Menu", docs: "API documentation" },
  header: { live: "Live", offline: "Reconnecting…", language: "Language", scheme: "Light or dark", signOut: "Sign out", signedIn: "Signed in as {{name}} ({{role}})" },
  role: { viewer: "viewer", operator: "operator", admin: "admin" },
  signIn: { title: "Sign in", show: "Show it", token: "Token", hint: "Made by: contenthub token create NAME --role operator", submit: "Sign in" },
  state: { pending: "Waiting", running: "Running", retrying: "Retrying", suspended: "Suspended", parked: "Parked", success: "Succeeded", failed: "Failed", cancelled: "Cancelled", skipped: "Skipped" },
  reason: {
    overlap: "an earlier run was not over", misfire: "too late", paused: "paused before it fired", rescheduled: "rescheduled before it fired", coalesced: "folded into one catch-up run", timeout: "time limit reached", node_lost: "its node died", unknown_executor: "no such executor", invalid_params: "params refused", handed_back: "handed back at shutdown", suspended: "waits", replay_mismatch: "code left its stored steps", parent_cancelled: "parent cancelled", task_deleted: "task deleted", cancelled: "cancelled",
  },
  trigger: { schedule: "Schedule", catch_up: "Catch-up", manual: "By hand", api: "API", code: "Code", cli: "Command line", parent: "parent" },
  common: {
    loading: "Loading…", retry: "Try again", more: "Load more", none: "None", all: "All", cancel: "Cancel", close: "Close", save: "Save", create: "Create", delete: "Delete", edit: "Edit", duplicate: "Duplicate", refresh: "Refresh", copy: "Copy", copied: "Copied", yes: "Yes", no: "No", never: "never", name: "Name", type: "Type", state: "State", time: "Time", details: "Details", search: "Search", error: "That did not work", clear: "Clear filters", selected: "{{count}} selected", selectAll: "Select all", select: "Select {{name}}", done: "{{count}} done", someFailed: "{{failed}} of {{count}} refused: {{message}}", notFound: "There is no such page.", optional: "optional", actions: "Actions",
  },
  overview: {
    title: "Overview", attention: "Needs attention", allWell: "Everything is as it should be.", throughput: "Executions", successRate: "Success rate", p50: "Median", p95: "95th percentile", p99: "99th percentile", ended: "Ended", running: "Under way", nothingRunning: "Nothing is running or waiting.", next: "Next fires", nothingNext: "No task has a fire to come.", nodes: "Nodes", chart: "Executions that ended, by time and state", timeline: "The next fires on a line from now", nowMark: "now", tasksActive: "{{active}} of {{total}} tasks active",
  },
  period: { label: "Period", hour: "Hour", day: "Day", week: "Week" },
  attention: {
    late_fires_one: "{{count}} task is late: it is due and no node fires it", late_fires_other: "{{count}} tasks are late: they are due and no node fires them",
    broken_schedules_one: "{{count}} task has a schedule that cannot be read", broken_schedules_other: "{{count}} tasks have schedules that cannot be read",
    failing_tasks_one: "{{count}} active task failed at its last run", failing_tasks_other: "{{count}} active tasks failed at their last run",
    parked_one: "{{count}} execution is parked: its executor is missing or refuses its params", parked_other: "{{count}} executions are parked: their executors are missing or refuse their params",
    waiting_long_one: "{{count}} execution has waited for more than five minutes", waiting_long_other: "{{count}} executions have waited for more than five minutes",
    running_long_one: "{{count}} execution has run for more than six hours", running_long_other: "{{count}} executions have run for more than six hours",
    rescued_one: "{{count}} execution under way was rescued from a dead node", rescued_other: "{{count}} executions under way were rescued from dead nodes",
    lost_one: "{{count}} execution was given up because its nodes died", lost_other: "{{count}} executions were given up because their nodes died",
    dead_nodes_one: "{{count}} node died in the last 24 hours or is silent", dead_nodes_other: "{{count}} nodes died in the last 24 hours or are silent",
    unknown_executors_one: "{{count}} active task names an executor this server does not have", unknown_executors_other: "{{count}} active tasks name executors this server does not have",
    no_node_one: "No node is alive: nothing fires and nothing runs", no_node_other: "No node is alive: nothing fires and nothing runs",
    loop_held_one: "The event loop of this server was blocked", loop_held_other: "The event loop of this server was blocked",
  },
  severity: { error: "Error", warning: "Warning", info: "Note" },
  tasks: {
    title: "Tasks", new: "New task", empty: "No tasks yet.", noMatch: "No task matches these filters.", schedule: "Schedule", noSchedule: "Runs when asked to", next: "Next fire", last: "Last run", runs: "Last runs", active: "Active", paused: "Paused", activity: "Activity", lastState: "Last run ended", order: "Sort by", order_id: "Age", order_name: "Name", order_next_run_at: "Next fire", pause: "Pause", resume: "Resume", run: "Run now", runWith: "Run with other params", runTitle: "Run {{name}} now", ran: "Started execution {{id}}", deleteTitle: "Delete {{name}}?", deleteText: "What waits is cancelled, what runs goes on, and the history stays.", deleted: "Deleted {{name}}", exhausted: "no fire left", broken: "Schedule cannot be read: {{error}}", declared: "Declared in code", gone: "No longer in code", bulkDeleteTitle_one: "Delete {{count}} task?", bulkDeleteTitle_other: "Delete {{count}} tasks?",
  },
  task: {
    summary: "Definition", params: "Params", executions: "Executions", history: "Changes", next: "Next fires", explain: "Why did it run, or not?", explainAt: "At ({{zone}})", policies: "Policies", retry: "Retry", attempts: "{{count}} attempts", noRetry: "as the executor says", timeout: "Time limit", misfire: "Missed fires", overlap: "Overlap", priority: "Priority", concurrency: "Concurrency", jitter: "Jitter", zone: "Zone", version: "Version {{version}}", inZone: "in {{zone}}", yours: "your time", change_create: "created", change_update: "changed", change_pause: "paused", change_resume: "resumed", change_delete: "deleted", changedBy: "{{who}} {{action}} it", from: "from", to: "to", noChanges: "No changes on record.", description: "Description",
  },
  form: {
    createTitle: "New task", editTitle: "Edit {{name}}", name: "Name", description: "Description", executor: "Executor", params: "Params", executorFirst: "Choose an executor first.", paramsJson: "Params as JSON", notJson: "This is not a JSON object.", schedule: "Schedule", kind: "Kind of schedule", cron: "Cron", interval: "Interval", at: "Once", none: "None", expression: "Cron expression", expressionHint: "minute hour day month weekday; also @daily, and seconds as a sixth field in front", every: "Every", unit: "Unit", seconds: "seconds", minutes: "minutes", hours: "hours", days: "days", weeks: "weeks", moment: "Moment", zone: "Time zone", policies: "Policies", misfire: "Missed fires", misfire_latest: "Catch up once", misfire_all: "Catch up on all", misfire_skip: "Skip", grace: "Grace (seconds)", overlap: "While an earlier run is not over", overlap_skip: "Skip this one", overlap_queue: "Queue it", overlap_allow: "Run both", overlap_cancel_running: "Cancel the earlier one", attempts: "Attempts", backoff: "First pause between attempts (seconds)", timeout: "Time limit (seconds)", priority: "Priority", jitter: "Jitter (seconds)", key: "Concurrency key", limit: "At most at once", preview: "What it will do", warnings: "Mind", active: "Fire from now on", conflict: "Somebody changed this task meanwhile. Reload it to see what.", saved: "Saved {{name}}", zoneTime: "{{zone}}", yourTime: "Your time ({{zone}})",
  },
  executions: {
    title: "Executions", empty: "Nothing has run yet.", noMatch: "No execution matches these filters.", searchOn: "Search further back", task: "Task", trigger: "Asked for by", since: "From", until: "Until", started: "Recorded", duration: "Duration", attempt: "Attempt", message: "Message", retry: "Retry", cancel: "Cancel", bulkCancelTitle_one: "Cancel {{count}} execution?", bulkCancelTitle_other: "Cancel {{count}} executions?", searchHint: "task, message or error", anyState: "Any state",
  },
  execution: {
    title: "Execution {{id}}", retry: "Retry", cancel: "Cancel", again: "Run again", againTitle: "Run again with these params", cancelling: "Cancellation asked for", timeline: "Attempts", params: "Params", result: "Result", error: "Error", traceback: "Stack", logs: "Log", noLogs: "No log lines were kept.", follow: "Follow", progress: "Progress", trigger: "Asked for by", by: "by {{who}}", scheduledFor: "Fire", created: "Recorded", startedAt: "Started", finishedAt: "Ended", waited: "Waited", took: "Took", node: "Node", owner: "Held by", key: "Concurrency key", idempotency: "Idempotency key", priority: "Priority", rescues: "Rescues", curl: "Copy as cURL", python: "Copy as Python", attemptNumber: "Attempt {{number}}", noAttempts: "It has not been started.", fireCount: "stands for {{count}} fires", message: "Message", runAt: "Not before",
  },
  executors: {
    title: "Executors", lane: "Lane", thread: "own thread", loop: "event loop", timeout: "Time limit", attempts: "Attempts", schema: "Params", noSchema: "This executor takes any JSON object.", runOnce: "Run once", runTitle: "Run {{type}} once", success: "Success", durations: "Median / p95", failures: "Recent failures", noFailures: "No failures on record.", info: "Says of itself", executed: "Ended",
  },
  system: {
    title: "System", nodes: "Nodes", node: "Node", host: "Host", pid: "Process", role: "Role", engine: "Engine", version: "Version", started: "Started", heartbeat: "Last heartbeat", running: "Running", alive: "Alive", stopped: "Stopped", dead: "Found dead", silent: "Silent", thisServer: "This server", database: "Database", journal: "Journal", journalText: "{{writes}} writes in {{groups}} groups", clock: "Clock", clockText: "your clock differs by {{lag}}", lastTick: "Last look at the schedules", settings: "Settings", setting: "Setting", value: "Value", changed: "set", retention: "Retention", retentionText: "Finished executions are kept for {{days}} days.", tokens: "Tokens", newToken: "New token", tokenOnce: "Copy it now: it is not shown again.", revoke: "Revoke", revokeTitle: "Revoke {{name}}?", revokeText: "Everything that signs in with it stops working at once.", revoked: "revoked", created: "Created", noTokens: "No token exists: only this machine may ask.", adminOnly: "Settings and tokens are for admins.",
  },
  calendar: { title: "Calendar", text: "Fires of the coming week, hour by hour, in your time zone.", fires_one: "{{count}} fire", fires_other: "{{count}} fires", partial: "Shown are the {{shown}} of {{total}} tasks that fire first.", pick: "Choose an hour to see what fires.", estimate: "estimated", empty: "Nothing fires in the coming week." },
};
