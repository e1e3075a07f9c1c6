import { Button, Table, Text } from "@mantine/core";
import { useQuery } from "@tanstack/react-query";
import { useTranslation } from "react-i18next";

import { resetCircuit } from "../api/actions";
import type { Schemas } from "../api/client";
import { flowQuery } from "../api/queries";
import { useAct } from "./act";
import { Empty, Loaded } from "./feedback";
import { Section } from "./page";
import { useMay } from "./session";
import { Dot } from "./state";
import { Ago } from "./time";

const phaseColors: Record<Schemas["CircuitAnswer"]["phase"], string> = { closed: "#22a06b", half_open: "#d98a00", open: "#e0413f" };

/** What lets work through at a measure, and how full it is. */
export function Flow() {
  const { t } = useTranslation();
  const found = useQuery(flowQuery);
  return (
    <Section title={t("flow.title")} flush>
      <Loaded query={found}>{(data) => <Rows flow={data} />}</Loaded>
    </Section>
  );
}

function Rows({ flow }: { flow: Schemas["FlowAnswer"] }) {
  const { t } = useTranslation();
  const mayChange = useMay("operator");
  const reset = useAct(resetCircuit);
  if (flow.circuits.length + flow.rate_limits.length + flow.concurrency.length === 0) return <Empty>{t("flow.none")}</Empty>;
  return (
    <Table.ScrollContainer minWidth={560} scrollAreaProps={{ type: "auto" }}>
      <Table className="rows">
        <Table.Tbody>
          {flow.circuits.map((circuit) => (
            <Table.Tr key={`circuit ${circuit.task_type}`}>
              <Table.Td><Text size="sm" fw={600}>{circuit.task_type}</Text><Text size="xs" c="dimmed">{t("flow.circuit")}</Text></Table.Td>
              <Table.Td><Dot color={phaseColors[circuit.phase]} /> <Text component="span" size="sm">{t(`flow.${circuit.phase}`)}</Text></Table.Td>
              <Table.Td><Text size="sm">{circuit.attempts === 0 ? null : t("flow.failures", { failures: circuit.failures, attempts: circuit.attempts })}</Text></Table.Td>
              <Table.Td><Text size="sm">{t("flow.waiting", { count: circuit.waiting })}</Text></Table.Td>
              <Table.Td ta="right">
                {mayChange && circuit.phase !== "closed" ? <Button size="compact-xs" variant="default" onClick={() => reset.mutate(circuit.task_type)}>{t("flow.reset")}</Button> : null}
              </Table.Td>
            </Table.Tr>
          ))}
          {flow.rate_limits.map((rate) => (
            <Table.Tr key={`rate ${rate.key}`}>
              <Table.Td maw={260}><Text size="sm" fw={600} className="clip">{rate.key}</Text><Text size="xs" c="dimmed">{t("flow.rate")}</Text></Table.Td>
              <Table.Td><Text size="sm">{t("flow.per", { limit: rate.limit, seconds: rate.per_seconds })}</Text></Table.Td>
              <Table.Td><Text size="sm">{t("flow.available", { count: rate.available })}</Text></Table.Td>
              <Table.Td><Text size="sm">{t("flow.waiting", { count: rate.waiting })}</Text></Table.Td>
              <Table.Td ta="right"><Ago at={rate.next_at} /></Table.Td>
            </Table.Tr>
          ))}
          {flow.concurrency.map((key) => (
            <Table.Tr key={`key ${key.key}`}>
              <Table.Td maw={260}><Text size="sm" fw={600} className="clip">{key.key}</Text><Text size="xs" c="dimmed">{t("execution.key")}</Text></Table.Td>
              <Table.Td><Text size="sm">{t("flow.running", { running: key.running, limit: key.limit })}</Text></Table.Td>
              <Table.Td />
              <Table.Td><Text size="sm">{t("flow.waiting", { count: key.waiting })}</Text></Table.Td>
              <Table.Td />
            </Table.Tr>
          ))}
        </Table.Tbody>
      </Table>
    </Table.ScrollContainer>
  );
}
