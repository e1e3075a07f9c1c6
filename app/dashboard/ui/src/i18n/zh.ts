import type { en } from "./en";

export const zh: typeof en = {
  app: "ContentHub 调度器",
  nav: { overview: "总览", tasks: "任务", calendar: "日历", executions: "执行记录", approvals: "审批", alerts: "告警", executors: "执行器", system: "系统", label: "主导航", skip: "跳到正文", open: "菜单", docs: "API 文档" },
  header: { live: "实时", offline: "正在重连…", language: "语言", scheme: "浅色或深色", signOut: "退出登录", signedIn: "当前身份：{{name}}（{{role}}）" },
  role: { viewer: "只读", operator: "操作员", admin: "管理员" },
  signIn: { title: "登录", show: "显示", token: "令牌", hint: "创建方式：contenthub token create NAME --role operator", submit: "登录" },
  state: { pending: "等待中", running: "运行中", retrying: "待重试", suspended: "已挂起", parked: "已搁置", success: "成功", failed: "失败", cancelled: "已取消", skipped: "已跳过" },
  reason: { overlap: "上一次运行尚未结束", misfire: "错过时间", paused: "触发前已暂停", rescheduled: "触发前已改期", coalesced: "合并为一次补跑", timeout: "超时", node_lost: "所在节点失联", unknown_executor: "执行器不存在", invalid_params: "参数未通过校验", handed_back: "停机时交还", suspended: "挂起等待", replay_mismatch: "代码与已保存的步骤不一致", parent_cancelled: "父执行已取消", task_deleted: "任务已删除", calendar: "时段或日历不开放", deferred: "等待任务重新开放", rate_limited: "等待限速放行", circuit_open: "等待熔断器关闭", circuit_probe: "熔断器探测", cancelled: "已取消" },
  trigger: { schedule: "定时", catch_up: "补跑", manual: "手动", api: "API", code: "代码", cli: "命令行", backfill: "回补", parent: "父执行", alert: "告警" },
  common: {
    loading: "加载中…", retry: "重试", more: "加载更多", none: "无", all: "全部", cancel: "取消", close: "关闭", save: "保存", create: "创建", delete: "删除", edit: "编辑", duplicate: "复制一份", refresh: "刷新", copy: "复制", copied: "已复制", notCopied: "浏览器不允许此页面复制；请选中文字后手动复制", yes: "是", no: "否", never: "从未", name: "名称", type: "类型", state: "状态", time: "时间", details: "详情", search: "搜索", error: "操作未成功", clear: "清除筛选", selected: "已选 {{count}} 项", selectAll: "全选", select: "选择 {{name}}", done: "完成 {{count}} 项", someFailed: "{{count}} 项中有 {{failed}} 项被拒绝：{{message}}", notFound: "没有这个页面。", forOperators: "仅操作员和管理员可以执行此操作；您的令牌是只读的。", optional: "可选", apply: "完成", actions: "操作", noPage: "无法显示此页面", reload: "重新加载",
  },
  unreachable: {
    server: "无法连接服务器。请检查服务是否在运行、网络是否连通。",
    code: "无法获取此页面的代码：服务器无法连接，或已更新。",
  },
  overview: {
    title: "总览", attention: "需要关注", allWell: "一切正常。", throughput: "执行次数", successRate: "成功率", p50: "中位耗时", p95: "95 分位", p99: "99 分位", ended: "已结束", running: "进行中", nothingRunning: "当前没有运行或等待开始的执行。", suspended_one: "{{count}} 次执行已挂起：等待信号、时间或其他执行", suspended_other: "{{count}} 次执行已挂起：等待信号、时间或其他执行", next: "即将触发", nothingNext: "没有任务即将触发。", nodes: "节点", chart: "按时间和状态统计的已结束执行", timeline: "从现在起的触发时间线", nowMark: "现在", tasksActive: "{{total}} 个任务中 {{active}} 个启用", more: "还有 {{count}} 项",
  },
  period: { label: "时间范围", hour: "小时", day: "天", week: "周" },
  attention: {
    late_fires_one: "{{count}} 个任务已到期，但没有节点触发它", late_fires_other: "{{count}} 个任务已到期，但没有节点触发它们",
    broken_schedules_one: "{{count}} 个任务的调度无法读取", broken_schedules_other: "{{count}} 个任务的调度无法读取",
    unknown_holidays_one: "本服务无法判断 {{count}} 个任务的日历：只有装有 holidays 包的节点会触发它", unknown_holidays_other: "本服务无法判断 {{count}} 个任务的日历：只有装有 holidays 包的节点会触发它们",
    failing_tasks_one: "{{count}} 个启用的任务最近一次运行失败", failing_tasks_other: "{{count}} 个启用的任务最近一次运行失败",
    parked_one: "{{count}} 次执行被搁置：执行器缺失或参数未通过校验", parked_other: "{{count}} 次执行被搁置：执行器缺失或参数未通过校验",
    waiting_long_one: "{{count}} 次执行等待超过五分钟", waiting_long_other: "{{count}} 次执行等待超过五分钟",
    running_long_one: "{{count}} 次执行运行超过六小时", running_long_other: "{{count}} 次执行运行超过六小时",
    rescued_one: "{{count}} 次进行中的执行是从失联节点接管的", rescued_other: "{{count}} 次进行中的执行是从失联节点接管的",
    lost_one: "{{count}} 次执行因节点反复失联而放弃", lost_other: "{{count}} 次执行因节点反复失联而放弃",
    dead_nodes_one: "{{count}} 个节点在 24 小时内失联或没有心跳", dead_nodes_other: "{{count}} 个节点在 24 小时内失联或没有心跳",
    unknown_executors_one: "{{count}} 个启用的任务使用了本服务没有的执行器", unknown_executors_other: "{{count}} 个启用的任务使用了本服务没有的执行器",
    no_node_one: "没有存活的节点：不会触发，也不会运行", no_node_other: "没有存活的节点：不会触发，也不会运行",
    loop_held_one: "本服务的事件循环曾被阻塞", loop_held_other: "本服务的事件循环曾被阻塞",
    alerts_open_one: "{{count}} 条告警未恢复，也无人确认", alerts_open_other: "{{count}} 条告警未恢复，也无人确认",
    circuit_open_one: "{{count}} 个执行器的熔断器已打开，其执行在等待", circuit_open_other: "{{count}} 个执行器的熔断器已打开，其执行在等待",
  },
  severity: { error: "错误", warning: "警告", info: "提示" },
  tasks: {
    title: "任务", new: "新建任务", empty: "还没有任务。", noMatch: "没有符合筛选条件的任务。", schedule: "调度", noSchedule: "仅在请求时运行", next: "下次触发", last: "上次运行", runs: "最近运行", active: "启用", paused: "已暂停", activity: "启用状态", lastState: "上次结果", order: "排序", order_id: "创建顺序", order_name: "名称", order_next_run_at: "下次触发", pause: "暂停", resume: "恢复", run: "立即运行", runWith: "修改参数后运行", runTitle: "立即运行 {{name}}", ran: "已开始执行 {{id}}", deleteTitle: "删除 {{name}}？", deleteText: "等待中的执行会被取消，运行中的继续，历史保留。", deleteDeclared: "此任务由代码声明：除非从代码中去掉，下次启动时它会再次出现；若只想让它不运行，请暂停它。等待中的执行会被取消，运行中的继续，历史保留。", deleted: "已删除 {{name}}", exhausted: "不会再触发", broken: "调度无法读取：{{error}}", declared: "在代码中声明", gone: "代码中已不存在", bulkDeleteTitle_one: "删除 {{count}} 个任务？", bulkDeleteTitle_other: "删除 {{count}} 个任务？", notRan: "执行 {{id}} 被跳过：{{reason}}", closed: "每次触发时都不开放",
  },
  task: {
    summary: "定义", params: "参数", executions: "执行记录", history: "变更记录", next: "接下来的触发", explain: "为什么运行或没有运行？", explainAt: "时刻（{{zone}}）", policies: "策略", retry: "重试", attempts: "共 {{count}} 次", noRetry: "由执行器决定", timeout: "超时", misfire: "错过的触发", overlap: "重叠", priority: "优先级", concurrency: "并发", jitter: "抖动", zone: "时区", version: "版本 {{version}}", inZone: "{{zone}} 时间", yours: "您的时间", change_create: "创建", change_update: "修改", change_pause: "暂停", change_resume: "恢复", change_delete: "删除", changedBy: "{{who}} {{action}}", from: "原值", to: "新值", noChanges: "没有变更记录。", description: "描述",
  },
  form: {
    createTitle: "新建任务", editTitle: "编辑 {{name}}", name: "名称", description: "描述", executor: "执行器", params: "参数", executorFirst: "请先选择执行器。", paramsJson: "JSON 参数", notJson: "这不是一个 JSON 对象。", schedule: "调度", kind: "调度方式", cron: "Cron", interval: "间隔", at: "一次性", none: "无", expression: "Cron 表达式", expressionHint: "分 时 日 月 星期；也可写 @daily，或在最前加秒字段", every: "每隔", unit: "单位", seconds: "秒", minutes: "分钟", hours: "小时", days: "天", weeks: "周", moment: "时刻（{{zone}}）", zone: "时区", policies: "策略", misfire: "错过的触发", misfire_latest: "补跑一次", misfire_all: "全部补跑", misfire_skip: "跳过", grace: "宽限（秒）", overlap: "上一次尚未结束时", overlap_skip: "跳过本次", overlap_queue: "排队", overlap_allow: "同时运行", overlap_cancel_running: "取消上一次", attempts: "尝试次数", backoff: "首次重试间隔（秒）", timeout: "超时（秒）", priority: "优先级", jitter: "抖动（秒）", key: "并发键", limit: "最多同时", preview: "它将如何运行", warnings: "请注意", active: "立即启用", conflict: "此任务刚被他人修改，请重新加载后查看。", saved: "已保存 {{name}}", zoneTime: "{{zone}}", yourTime: "您的时间（{{zone}}）", zoneUnknown: "UTC（此浏览器没有时区 {{zone}}）", atFields: "错误已标在对应的字段处。", start_at: "从此刻起触发（{{zone}}）", end_at: "触发到此刻为止（{{zone}}）", dst: "换时跳过的 cron 时间", dst_cron: "换时之后立即运行", dst_skip: "跳过",
  },
  kind: { string: "文本", integer: "整数", number: "数字", boolean: "是或否", array: "列表", object: "对象", null: "空", moment: "时刻", any: "任意内容", listOf: "列表（{{of}}）" },
  invalid: {
    required: "必填。", type: "应为：{{kind}}。", enum: "应为以下之一：{{values}}。", minimum: "不能小于 {{limit}}。", maximum: "不能大于 {{limit}}。", exclusiveMinimum: "必须大于 {{limit}}。", exclusiveMaximum: "必须小于 {{limit}}。", multipleOf: "必须是 {{limit}} 的倍数。", pattern: "不符合 {{limit}}。", format: "不是有效的 {{limit}}。", uniqueItems: "不能有重复的项。", false: "没有这个参数。", other: "不符合参数的结构。",
    minLength_one: "至少 {{count}} 个字符。", minLength_other: "至少 {{count}} 个字符。", maxLength_one: "最多 {{count}} 个字符。", maxLength_other: "最多 {{count}} 个字符。", minItems_one: "至少 {{count}} 项。", minItems_other: "至少 {{count}} 项。", maxItems_one: "最多 {{count}} 项。", maxItems_other: "最多 {{count}} 项。", minProperties_one: "至少 {{count}} 个条目。", minProperties_other: "至少 {{count}} 个条目。", maxProperties_one: "最多 {{count}} 个条目。", maxProperties_other: "最多 {{count}} 个条目。",
  },
  fields: { add: "添加", item: "项", up: "上移", down: "下移", remove: "移除", key: "{{name}}：名称", deprecated: "{{name}}（已弃用）", newValue: "新的值", yes: "是", no: "否" },
  taskField: { name: "名称", description: "描述", task_type: "执行器", params: "参数", schedule_type: "调度方式", schedule_expression: "调度", timezone: "时区", dst_policy: "换时跳过的 cron 时间", start_at: "从此刻起触发", end_at: "触发到此刻为止", is_active: "启用", misfire_policy: "错过的触发", misfire_grace_seconds: "宽限（秒）", overlap_policy: "上一次尚未结束时", retry: "重试", timeout_seconds: "超时（秒）", priority: "优先级", jitter_seconds: "抖动（秒）", concurrency_key: "并发键", concurrency_limit: "最多同时", rate_limit: "限速", run_window: "允许触发的时段", calendar: "日历", closed_policy: "休息时的触发" },
  unsent: { title: "不保存就离开？", text: "您填写的内容还没有提交，离开后将会丢失。", stay: "留下", leave: "离开" },
  window: { title: "允许触发的时段", opens: "从", closes: "到", days: "星期", daysHint: "不选：每天", country: "公共假日休息（国家代码）", subdivision: "地区代码", closed: "另外休息的日期", open: "照常开放的日期", closedPolicy: "休息时的触发", closed_skip: "跳过", closed_defer: "推迟到开放时", always: "任何时间", hours: "{{opens}}–{{closes}}", holidays: "{{country}} 假日休息", closedDays_one: "{{count}} 个休息日", closedDays_other: "{{count}} 个休息日" },
  rate: { limit: "最多启动次数", perSeconds: "每（秒）", burst: "停顿后可一次启动", key: "按参数的每个值分别限制", text: "每 {{seconds}} 秒 {{limit}} 次", textOf: "每个 {{key}} 每 {{seconds}} 秒 {{limit}} 次" },
  backfill: { action: "回补过去", title: "回补 {{name}} 的过去", text: "账本里缺少的过去的触发会被记录并运行，旧的在先。", start: "从", end: "到", pace: "节奏", one: "一个接一个", some: "同时多个", timed: "每隔一段时间一个", atOnce: "同时运行", every: "两次启动之间的秒数", preview: "预览", count_one: "将运行 {{count}} 次触发", count_other: "将运行 {{count}} 次触发", none: "这段时间没有缺少的触发。", known_one: "{{count}} 次已在账本里，保持不变", known_other: "{{count}} 次已在账本里，保持不变", closed_one: "{{count}} 次在休息时段，不补", closed_other: "{{count}} 次在休息时段，不补", confirm_one: "运行 {{count}} 次触发", confirm_other: "运行 {{count}} 次触发", done_one: "已记录 {{count}} 次触发", done_other: "已记录 {{count}} 次触发" },
  executions: {
    title: "执行记录", empty: "还没有执行记录。", noMatch: "没有符合筛选条件的执行。", searchOn: "继续向前搜索", task: "任务", trigger: "来源", since: "从", until: "到", started: "记录时间", duration: "耗时", attempt: "尝试", message: "消息", retry: "重试", cancel: "取消", bulkCancelTitle_one: "取消 {{count}} 次执行？", bulkCancelTitle_other: "取消 {{count}} 次执行？", searchHint: "任务、消息或错误", anyState: "任意状态", childrenOf: "#{{id}} 的子执行",
  },
  execution: {
    title: "执行 {{id}}", limitOfExecutor: "{{limit}}（执行器的）", retry: "重试", cancel: "取消", again: "再次运行", againTitle: "修改参数后再次运行", cancelling: "已请求取消", timeline: "尝试", params: "参数", result: "结果", error: "错误", traceback: "堆栈", logs: "日志", noLogs: "没有保留日志。", follow: "跟随", progress: "进度", trigger: "来源", by: "由 {{who}}", scheduledFor: "触发时刻", created: "记录时间", startedAt: "开始", finishedAt: "结束", waited: "等待", took: "耗时", inAll: "总共", node: "节点", owner: "持有者", key: "并发键", idempotency: "幂等键", priority: "优先级", rescues: "接管次数", curl: "复制为 cURL", python: "复制为 Python", attemptNumber: "第 {{number}} 次", noAttempts: "尚未开始。", fireCount: "代表 {{count}} 次触发", message: "消息", runAt: "不早于", parent: "父执行", asChild: "作为 {{key}}", children: "子执行", steps: "步骤", waits: "等待中", signals: "信号", noSignals: "还没有发送过。", sendSignal: "发送信号", signalSent: "已发送 {{name}}", signalKept: "保留至有人等待", signalTaken: "已接收", payload: "内容（JSON）", notJson: "这不是 JSON。", lastChildren: "最后 {{shown}} 个，共 {{total}} 个。",
  },
  stepKind: { step: "步骤", sleep: "休眠", signal: "信号" },
  executors: {
    title: "执行器", noMatch: "没有哪个执行器的类型含有它。", lane: "通道", thread: "独立线程", loop: "事件循环", timeout: "超时", attempts: "尝试次数", attemptsOn: "{{attempts}}，仅在 {{errors}} 之后", schema: "参数", noSchema: "此执行器接受任意 JSON 对象。", runOnce: "运行一次", runTitle: "运行一次 {{type}}", success: "成功率", durations: "中位 / p95", failures: "最近的失败", noFailures: "没有失败记录。", info: "自述", executed: "已结束",
  },
  system: {
    title: "系统", nodes: "节点", node: "节点", host: "主机", pid: "进程", role: "角色", engine: "引擎", version: "版本", started: "启动", heartbeat: "最近心跳", running: "运行中", alive: "存活", stopped: "已停止", dead: "失联", silent: "无心跳", thisServer: "本服务", database: "数据库", journal: "日志写入", journalText: "{{writes}} 次写入，分 {{groups}} 组提交", clock: "时钟", clockText: "与您的时钟相差 {{lag}}", lastTick: "最近一次检查调度", settings: "设置", setting: "设置项", value: "值", changed: "已设置", retention: "保留", retentionText: "已结束的执行保留 {{days}} 天。", tokens: "令牌", newToken: "新建令牌", tokenOnce: "请立即复制，之后不再显示。", revoke: "吊销", revokeTitle: "吊销 {{name}}？", revokeText: "使用它登录的一切将立即失效。", revoked: "已吊销", created: "创建时间", noTokens: "没有令牌：仅本机可以访问。", adminOnly: "设置和令牌仅管理员可见。",
  },
  calendar: { title: "日历", text: "未来一周每小时的触发次数（您的时区）。", fires_one: "{{count}} 次触发", fires_other: "{{count}} 次触发", partial: "显示最先触发的 {{shown}} 个任务，共 {{total}} 个。", pick: "选择一个小时查看触发的任务。", estimate: "估算", empty: "未来一周没有触发。" },
  approvals: { title: "审批", empty: "没有等待决定的审批。", question: "等待决定", asked: "提出于", expires: "截止", on_fail: "逾期则失败", on_approve: "逾期则视为同意", on_reject: "逾期则视为拒绝", stepOf: "步骤 {{step}}，属于", approvers: "审批人：{{names}}", comment: "意见", tooLong: "{{count}} 个字符，最多 {{longest}} 个", approve: "同意", reject: "拒绝", decided: "已决定：执行 {{id}} 将继续" },
  workflow: { title: "工作流", after: "在 {{steps}} 之后", runs: "已完成 {{done}} / {{count}}", undone: "已撤销：" },
  stepState: { waiting: "等待中", running: "进行中", success: "成功", failed: "失败", skipped: "已跳过" },
  doctor: { title: "未来 30 天会出的问题", text: "{{tasks}} 个启用的任务，{{fires}} 次触发", allWell: "没有发现问题。" },
  alerts: {
    title: "告警", open: "未恢复的告警", noneOpen: "没有未恢复的告警。", rules: "规则", newRule: "新建规则", noRules: "还没有规则：出了问题不会通知任何人。", channels: "通道", newChannel: "新建通道", noChannels: "还没有通道。", acknowledge: "确认", acknowledgedBy: "{{who}} 已确认", warning: "警告", critical: "严重", severity: "级别", anyTask: "任意任务", deleteTitle: "删除 {{name}}？", test: "测试", url: "地址", urlHint: "apprise 的写法：mailto://…、slack://…、feishu://…、dingtalk://…、json://…。之后不再显示。", condition: "条件",
    editRule: "编辑 {{name}}", task: "任务", remind: "重复通知的间隔（秒）", remindHint: "告警未恢复且无人确认时", recovery: "恢复时通知", quietFrom: "静默开始", quietUntil: "静默结束", quietHint: "期间只通知严重告警",
    when_failed: "任务连续失败", when_late: "任务迟到", when_slow: "运行远超平常耗时", when_no_success: "任务久未成功", when_parked: "执行被搁置",
    amount_failed: "连续失败次数", amount_late: "迟到秒数", amount_slow: "平常 p99 的倍数", amount_no_success: "未成功的秒数", amount_parked: "搁置的执行数",
    is_failed: "连续失败 {{amount}} 次", is_late: "迟到超过 {{amount}} 秒", is_slow: "耗时超过 p99 的 {{amount}} 倍", is_no_success: "{{amount}} 秒内没有成功", is_parked: "搁置 {{amount}} 个以上",
  },
  flow: { title: "限制与熔断", none: "没有使用中的速率限制、并发键或熔断器。", circuit: "熔断器", rate: "速率限制", closed: "闭合", half_open: "试探中", open: "断开", failures: "最近 {{attempts}} 次中失败 {{failures}} 次", waiting: "{{count}} 个等待", reset: "复位", per: "{{seconds}} 秒内 {{limit}} 次", available: "现在可开始 {{count}} 个", running: "运行中 {{running}} / {{limit}}" },
};
