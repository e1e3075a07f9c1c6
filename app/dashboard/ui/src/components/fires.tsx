import { Table } from "@mantine/core";
import { useTranslation } from "react-i18next";

import { absolute, browserZone, knownZone, offsetOf } from "../format";

interface Props {
  fires: string[];
  zone: string;
  language: string;
}

/** Moments in the task's zone and, where that is another one, in the reader's. */
export function Fires({ fires, zone, language }: Props) {
  const { t } = useTranslation();
  const zones = zone === browserZone ? [zone] : [zone, browserZone];
  // The offset stands in each row only where the clocks change between them.
  const changes = zones.map((one) => new Set(fires.map((fire) => offsetOf(fire, one))).size > 1);
  return (
    <Table.ScrollContainer minWidth={zones.length > 1 ? 380 : 200} scrollAreaProps={{ type: "auto" }}>
      <Table verticalSpacing={4} fz="sm">
        <Table.Thead>
          <Table.Tr>
            {zones.map((one, index) => <Table.Th key={one}>{index > 0 ? t("form.yourTime", { zone: one }) : knownZone(one) === one ? one : t("form.zoneUnknown", { zone: one })}</Table.Th>)}
          </Table.Tr>
        </Table.Thead>
        <Table.Tbody>
          {fires.map((fire) => (
            <Table.Tr key={fire}>
              {zones.map((one, index) => (
                <Table.Td key={one} className="number" style={{ whiteSpace: "nowrap" }}>
                  {absolute(fire, language, one, changes[index])}
                </Table.Td>
              ))}
            </Table.Tr>
          ))}
        </Table.Tbody>
      </Table>
    </Table.ScrollContainer>
  );
}
