/** Every change a person can ask for. */
import { api, body, type Schemas } from "./client";
import type { Language } from "../i18n";

const root = "/api/v1/scheduler";
const task = (task_id: number) => ({ params: { path: { task_id } } });
const execution = (execution_id: number) => ({ params: { path: { execution_id } } });

export type JsonObject = Record<string, unknown>;

const CHANNEL = "contenthub-session";

/** The windows of a browser have one session: the others are told that it is another one, or none. */
function tellOtherWindows(): void {
  const channel = new BroadcastChannel(CHANNEL);
  channel.postMessage(null);
  channel.close();
}

/** What to do when somebody signs in or out in another window. Returns what ends that. */
export function onSignedInElsewhere(listener: () => void): () => void {
  const channel = new BroadcastChannel(CHANNEL);
  channel.onmessage = listener;
  return () => channel.close();
}

export const signIn = async (token: string) => {
  const session = body(await api.POST(`${root}/session`, { body: { token } }));
  tellOtherWindows();
  return session;
};

export const signOut = async () => {
  await api.DELETE(`${root}/session`);
  tellOtherWindows();
};

export const createTask = async (definition: JsonObject) =>
  body(await api.POST(`${root}/tasks`, { body: definition as Schemas["TaskDefinition"] }));
export const taskNamed = async (name: string) =>
  body(await api.GET(`${root}/tasks`, { params: { query: { search: name, limit: 100 } } })).items.find((one) => one.name === name);
export const changeTask = async (id: number, version: number, changes: JsonObject) =>
  body(
    await api.PATCH(`${root}/tasks/{task_id}`, {
      params: { path: { task_id: id }, header: { "if-match": `"${version}"` } },
      body: changes,
    }),
  );
export const deleteTask = async (id: number) => {
  await api.DELETE(`${root}/tasks/{task_id}`, task(id));
};
export const pauseTask = async (id: number) => body(await api.POST(`${root}/tasks/{task_id}/pause`, task(id)));
export const resumeTask = async (id: number) => body(await api.POST(`${root}/tasks/{task_id}/resume`, task(id)));
export const runTask = async (id: number, params?: JsonObject) =>
  body(
    await api.POST(`${root}/tasks/{task_id}/run`, {
      ...task(id),
      body: params === undefined ? null : { params: params },
    }),
  );
export const previewBackfill = async (id: number, range: Schemas["BackfillRange"]) =>
  body(await api.POST(`${root}/tasks/{task_id}/backfill/preview`, { ...task(id), body: range }));
export const backfillTask = async (id: number, wanted: Schemas["BackfillRequest"]) =>
  body(await api.POST(`${root}/tasks/{task_id}/backfill`, { ...task(id), body: wanted }));
export const previewSchedule = async (definition: JsonObject, language: Language, anchor?: string) =>
  body(
    await api.POST(`${root}/tasks/preview`, {
      params: { query: { count: 10, language, anchor } },
      body: definition,
    }),
  );

export const enqueue = async (request: Schemas["EnqueueRequest"]) =>
  body(await api.POST(`${root}/executions`, { body: request }));
export const cancelExecution = async (id: number) =>
  body(await api.POST(`${root}/executions/{execution_id}/cancel`, execution(id)));
export const retryExecution = async (id: number) =>
  body(await api.POST(`${root}/executions/{execution_id}/retry`, execution(id)));
export const signalExecution = async (id: number, signal: Schemas["SignalBody"]) =>
  body(await api.POST(`${root}/executions/{execution_id}/signals`, { ...execution(id), body: signal }));
export const decideApproval = async (id: number, decision: Schemas["DecisionBody"]) =>
  body(await api.POST(`${root}/executions/{execution_id}/decision`, { ...execution(id), body: decision }));
export const readLogs = async (id: number, after: number) =>
  body(
    await api.GET(`${root}/executions/{execution_id}/logs`, {
      params: { path: { execution_id: id }, query: { after } },
    }),
  );

export const makeToken = async (request: Schemas["TokenRequest"]) =>
  body(await api.POST(`${root}/tokens`, { body: request }));
export const revokeToken = async (name: string) => {
  await api.DELETE(`${root}/tokens/{name}`, { params: { path: { name } } });
};

const rule = (rule_id: number) => ({ params: { path: { rule_id } } });
const channel = (channel_id: number) => ({ params: { path: { channel_id } } });

export const acknowledgeAlert = async (alert_id: number) =>
  body(await api.POST(`${root}/alerts/{alert_id}/acknowledge`, { params: { path: { alert_id } } }));
export const createRule = async (definition: Schemas["RuleDefinition"]) =>
  body(await api.POST(`${root}/alert-rules`, { body: definition }));
export const changeRule = async ({ id, ...changes }: { id: number } & Schemas["AlertRuleChanges"]) =>
  body(await api.PATCH(`${root}/alert-rules/{rule_id}`, { ...rule(id), body: changes }));
export const deleteRule = async (id: number) => {
  await api.DELETE(`${root}/alert-rules/{rule_id}`, rule(id));
};
export const createChannel = async (definition: Schemas["ChannelDefinition"]) =>
  body(await api.POST(`${root}/alert-channels`, { body: definition }));
export const testChannel = async (id: number) =>
  body(await api.POST(`${root}/alert-channels/{channel_id}/test`, channel(id)));
export const deleteChannel = async (id: number) => {
  await api.DELETE(`${root}/alert-channels/{channel_id}`, channel(id));
};

export const resetCircuit = async (task_type: string) =>
  body(await api.POST(`${root}/flow/circuits/{task_type}/reset`, { params: { path: { task_type } } }));
