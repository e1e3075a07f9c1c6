import { Group, Text } from "@mantine/core";
import { useQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { useTranslation } from "react-i18next";

import type { ExecutionState, Schemas } from "../api/client";
import { workflowQuery } from "../api/queries";
import { stateColors } from "../theme";
import { Loaded } from "./feedback";
import { Section } from "./page";
import { Dot } from "./state";

type Graph = Schemas["WorkflowGraph"];
type Step = Schemas["NodeOfGraph"];

const colorOf: Record<Step["state"], ExecutionState> = { waiting: "pending", running: "running", success: "success", failed: "failed", skipped: "skipped" };

/** Steps in columns: each stands to the right of everything it waits for. */
export function columnsOf(graph: Pick<Graph, "edges"> & { steps: Pick<Step, "id">[] }): string[][] {
  const sources = new Map<string, string[]>(graph.steps.map((step) => [step.id, []]));
  for (const edge of graph.edges) sources.get(edge.target)?.push(edge.source);
  const columns = new Map<string, number>();
  const columnOf = (id: string): number => {
    const known = columns.get(id);
    if (known !== undefined) return known;
    const own = Math.max(0, ...(sources.get(id) ?? []).map((source) => columnOf(source) + 1));
    columns.set(id, own);
    return own;
  };
  const all: string[][] = [];
  for (const step of graph.steps) (all[columnOf(step.id)] ??= []).push(step.id);
  return all;
}

export function WorkflowGraph({ id, isOver }: { id: number; isOver: boolean }) {
  const { t } = useTranslation();
  const found = useQuery(workflowQuery(id, isOver));
  return (
    <Section title={t("workflow.title")}>
      <Loaded query={found}>{(data) => <Columns graph={data} />}</Loaded>
    </Section>
  );
}

function Columns({ graph }: { graph: Graph }) {
  const { t } = useTranslation();
  const steps = new Map(graph.steps.map((step) => [step.id, step]));
  return (
    <>
      <div className="graph" tabIndex={0} role="region" aria-label={t("workflow.title")}>
        {columnsOf(graph).map((ids) => (
          <div key={ids[0]} className="graph-column">
            {ids.map((id) => {
              const step = steps.get(id);
              return step === undefined ? null : <Box key={id} step={step} after={graph.edges.filter((edge) => edge.target === id).map((edge) => edge.source)} />;
            })}
          </div>
        ))}
      </div>
      {graph.undone.length > 0 ? (
        <Group gap="sm">
          <Text size="sm" fw={600}>{t("workflow.undone")}</Text>
          {graph.undone.map((run) => <Run key={run.key} run={run} />)}
        </Group>
      ) : null}
    </>
  );
}

function Box({ step, after }: { step: Step; after: string[] }) {
  const { t } = useTranslation();
  const text = t(`stepState.${step.state}`);
  return (
    <div className="graph-box" data-workflow-step={step.id} data-state={step.state} style={{ borderLeftColor: stateColors[colorOf[step.state]] }}>
      <Text size="sm" fw={600} className="clip" title={step.id}>{step.id}</Text>
      <Text size="xs" c="dimmed" className="clip">{step.type}</Text>
      <Group gap={6} wrap="nowrap"><Dot color={stateColors[colorOf[step.state]]} pulse={step.state === "running"} /><Text size="xs">{text}</Text></Group>
      {after.length > 0 ? <Text size="xs" c="dimmed" className="clip">{t("workflow.after", { steps: after.join(", ") })}</Text> : null}
      {step.runs.length > 1 ? <Text size="xs" c="dimmed">{t("workflow.runs", { count: step.runs.length, done: step.runs.filter((run) => run.state === "success").length })}</Text> : null}
      {step.runs.length === 1 && step.runs[0] ? <Run run={step.runs[0]} /> : null}
      {step.error ? <Text size="xs" c="var(--mantine-color-error)" lineClamp={2}>{step.error}</Text> : null}
    </div>
  );
}

function Run({ run }: { run: Schemas["RunAnswer"] }) {
  if (run.execution_id === null) return <Text size="xs">{run.key}</Text>;
  return <Link className="link number" style={{ fontSize: "0.75rem" }} to="/executions/$id" params={{ id: run.execution_id }}>#{run.execution_id}</Link>;
}
